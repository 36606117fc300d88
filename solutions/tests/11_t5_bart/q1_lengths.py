from otter.test_files import test_case

OK_FORMAT = False

name = "q1_lengths"
points = 2

@test_case(points=None, hidden=False)
def test_source(source_length):
    from minillm.data.denoising import span_counts
    taken, spans = span_counts(240, density=0.25, mean_length=4)
    right = 240 - taken + spans + 1
    assert source_length != right - 1, 'the source has an end token too'
    assert source_length != 240 - taken + 1, 'each span leaves a sentinel in the source'
    assert source_length != 241, 'that is masking token by token: a span of four becomes one sentinel, not four'
    assert source_length == right, f'{taken} tokens are taken out in {spans} spans: count what stays, the sentinels, the end'

@test_case(points=None, hidden=False)
def test_targets(target_length, bart_target):
    from minillm.data.denoising import span_counts
    taken, spans = span_counts(240, density=0.25, mean_length=4)
    right = taken + spans + 2
    assert target_length != taken + 1, 'the target has the sentinels in it, or nobody knows which span is which'
    assert target_length != right - 1, 'one of the two that close the target is missing: the last sentinel, or the end token'
    assert target_length != right - 2, 'two things close the target: a last sentinel, and the end token'
    assert target_length == right, f'{taken} tokens, {spans} sentinels in front of them, a last sentinel, the end'
    assert bart_target != 240, "BART's target has an end token as well"
    assert bart_target != target_length, 'BART writes the whole text, not the missing parts'
    assert bart_target == 241, "BART's target is the text as it was before the noise, and an end token"

