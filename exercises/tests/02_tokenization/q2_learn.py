from otter.test_files import test_case

OK_FORMAT = False

name = "q2_learn"
points = 4

@test_case(points=None, hidden=False)
def test_small(learn):
    merges = learn({'low': 5, 'lower': 2, 'newest': 6, 'widest': 3}, 3)
    assert isinstance(merges, list) and len(merges) == 3, 'return a list of n_merges pairs'
    assert tuple(merges[0]) != ('w', 'e') or len(merges) > 3, 'a word counts as often as it occurs: add counts[word], not 1'
    assert tuple(merges[0]) == ('e', 's'), '(e, s) and (s, t) occur 9 times each; the first in sorted order is (e, s)'
    assert tuple(merges[1]) == ('es', 't'), 'recount after each merge: (es, t) now occurs 9 times'
    assert tuple(merges[2]) == ('l', 'o'), 'the third merge is (l, o), which occurs 7 times, as (o, w) does'

@test_case(points=None, hidden=False)
def test_frequency_and_runs(learn):
    assert [tuple(m) for m in learn({'xy': 1, 'xyz': 1, 'ab': 5}, 1)] == [('a', 'b')], 'weigh words: ab occurs 5 times, xy only twice'
    try:
        merges = [tuple(m) for m in learn({'aaa': 3, 'ab': 2}, 5)]
    except (ValueError, IndexError, StopIteration) as error:
        raise AssertionError('stop when no word has two tokens left: there is no most frequent pair among none') from error
    assert merges[:2] == [('a', 'a'), ('aa', 'a')], 'in aaa the pair (a, a) is merged once, from the left: aa, a'
    assert merges == [('a', 'a'), ('aa', 'a'), ('a', 'b')], 'stop when no pair is left, and do not raise an error'

@test_case(points=None, hidden=False)
def test_replaces_whole_tokens(learn):
    merges = [tuple(m) for m in learn({'ca': 9, 'cab': 5, 'ab': 6}, 5)]
    assert merges != [('c', 'a'), ('a', 'b')], "in ca·b the pair (a, b) does not stand: compare whole tokens. `str.replace` on a joined string finds 'a b' inside 'ca b'"
    assert merges == [('c', 'a'), ('a', 'b'), ('ca', 'b')], 'cab is ca·b after the first merge; (a, b) leaves it alone, (ca, b) is third'

