from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count"
points = 2

@test_case(points=None, hidden=False)
def test_lengths(n_context, n_tokens):
    from minillm.data.blank_infilling import BlankTokens, blank_out
    one = blank_out(list(range(20)), [(3, 6), (10, 11), (14, 18)], BlankTokens(90, 91, 92), order=[1, 0, 2])
    assert n_context != 12, 'that is the text without the spans; each hole keeps one mask token'
    assert n_context != 14, '14 to 17 are four places, 3 to 5 three, 10 one: eight in all'
    assert n_context == one.context, '20 tokens, eight gone, and one mask for each of three holes'
    assert n_tokens != 23, 'a mask token for each span is counted, and a start token for each span comes on top'
    assert n_tokens != 20, 'the cut tokens move to part B, and each span brings two new ones: a mask and a start token'
    assert n_tokens != 29, 'the end tokens are targets only: they are predicted, not read'
    assert n_tokens == len(one.tokens), 'part A, and in part B a start token and its tokens for each span'

@test_case(points=None, hidden=False)
def test_targets(n_targets):
    from minillm.data.blank_infilling import BlankTokens, blank_out
    one = blank_out(list(range(20)), [(3, 6), (10, 11), (14, 18)], BlankTokens(90, 91, 92), order=[1, 0, 2])
    assert n_targets != 8, 'the end token of each span is predicted too'
    assert n_targets != 26, 'only part B is predicted: part A is given'
    assert n_targets == int((one.targets >= 0).sum()), 'the tokens of the spans, and an end token for each'

@test_case(points=None, hidden=False)
def test_last_position(last_position):
    from minillm.data.blank_infilling import BlankTokens, blank_out
    one = blank_out(list(range(20)), [(3, 6), (10, 11), (14, 18)], BlankTokens(90, 91, 92), order=[1, 0, 2])
    given = tuple(last_position) if isinstance(last_position, (tuple, list)) else None
    assert given is not None and len(given) == 2, 'give two numbers: (place in part A, place in the block)'
    assert given != (5, 12), 'the place in part A comes first'
    assert given[0] not in (25, 26), 'part B does not count on behind the text: all its tokens stand at their hole'
    assert given[0] != 17, 'all tokens of a span share the place of their hole'
    assert given[0] != 14, 'the span began at place 14 of the text, but places are counted in part A, where earlier spans take one place each'
    assert given[0] != 10, 'each of the two holes before this one keeps its mask: four tokens went, two masks came'
    assert given[0] not in (3, 8), 'the span written last is the third of the text'
    assert given[1] != 4, 'the start token has block position 1, so the fourth token of the span has one more'
    assert given[1] != 11, 'block positions start anew in every span'
    assert given == tuple(one.positions[:, -1].tolist()), 'the place of the last hole in part A (14, less what earlier holes saved), then the place in the span (1 is the start token)'

