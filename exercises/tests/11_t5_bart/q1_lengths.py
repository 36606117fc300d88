from otter.test_files import test_case

OK_FORMAT = False

name = "q1_lengths"
points = 2

@test_case(points=None, hidden=False)
def test_longest(longest_text):
    from minillm.data.denoising import span_counts

    def source(n):
        taken, spans = span_counts(n, density=0.25, mean_length=4)
        return n - taken + spans + 1
    right = max((n for n in range(2, 1000) if source(n) <= 250))
    assert longest_text != 250, 'the source is shorter than the text: a longer text fits'
    assert longest_text not in (332, 333), 'each span leaves a sentinel in the source: 25% less is too short a source'
    assert longest_text != 308, 'a text of 308 has a source of 250 without its end token, which the encoder reads as well'
    if isinstance(longest_text, int) and 2 <= longest_text < right:
        assert longest_text == right, f'a text of {longest_text} fits (source {source(longest_text)}), but a longer one does too'
    assert longest_text == right, f'the source of that text does not have at most 250 tokens: for {right} it has {source(right)}'

@test_case(points=None, hidden=False)
def test_targets(target_length, bart_target):
    from minillm.data.denoising import span_counts

    def source(n):
        taken, spans = span_counts(n, density=0.25, mean_length=4)
        return n - taken + spans + 1
    n = max((n for n in range(2, 1000) if source(n) <= 250))
    taken, spans = span_counts(n, density=0.25, mean_length=4)
    right = taken + spans + 2
    assert target_length != taken + 1, 'the target has the sentinels in it, or nobody knows which span is which'
    assert target_length != right - 1, 'one of the two that close the target is missing: the last sentinel, or the end token'
    assert target_length != right - 2, 'two things close the target: a last sentinel, and the end token'
    assert target_length == right, 'the tokens taken out, the sentinels in front of the spans, a last sentinel, the end'
    assert bart_target != n, "BART's target has an end token as well"
    assert bart_target != target_length, 'BART writes the whole text, not the missing parts'
    assert bart_target == n + 1, "BART's target is the text as it was before the noise, and an end token"

