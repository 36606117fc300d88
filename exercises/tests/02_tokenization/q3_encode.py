from otter.test_files import test_case

OK_FORMAT = False

name = "q3_encode"
points = 4

@test_case(points=None, hidden=False)
def test_small(encode_word):
    merges = [('b', 'c'), ('a', 'b'), ('ab', 'c'), ('d', 'd')]
    tokens = encode_word('abc', merges)
    assert ''.join(tokens) == 'abc', 'the tokens joined must be the word: nothing may be lost or repeated'
    assert tokens != ['abc'], 'not the longest token: (b, c) was learned first, so ab is never formed here'
    assert tokens != ['ab', 'c'], 'not from the left: among the pairs that fit, the earliest merge is applied first, here (b, c)'
    assert tokens == ['a', 'bc'], 'merge what can be merged: (b, c) fits, so abc is a, bc'
    assert encode_word('', merges) == [], 'an empty word has no tokens'
    assert encode_word('x', merges) == ['x'], 'a single letter stays as it is'

@test_case(points=None, hidden=False)
def test_runs_and_repeats(encode_word):
    merges = [('a', 'a'), ('aa', 'aa'), ('aa', 'a')]
    assert encode_word('aaaaa', merges) == ['aaaa', 'a'], 'five a: aa, aa, a, then aaaa, a. Equal ranks are merged from the left'
    assert encode_word('aabaa', merges) == ['aa', 'b', 'aa'], 'a merge applies wherever its pair stands, not only once'
    again = [('a', 'b'), ('c', 'ab'), ('cab', 'a')]
    assert encode_word('cabab', again) == ['cab', 'ab'], 'new tokens make new pairs: look again after every merge'
    late = encode_word('abc', [('ab', 'c'), ('a', 'b')])
    assert late == ['abc'], 'one pass through `merges` is not enough: after (a, b) the earlier merge (ab, c) fits, so look again from the first'

