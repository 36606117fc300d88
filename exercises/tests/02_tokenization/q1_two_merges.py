from otter.test_files import test_case

OK_FORMAT = False

name = "q1_two_merges"
points = 2

@test_case(points=None, hidden=False)
def test_merges(first, second):
    assert not isinstance(first, str) and (not isinstance(second, str)), 'a merge is a pair of strings, (left, right): write the two tokens apart'
    assert tuple(first) != ('a', 'a'), 'weigh and count again: (a, a) occurs 2 x 4 = 8 times, but another pair occurs 1 x 4 + 2 x 3 times'
    assert tuple(first) == ('a', 'b'), 'the first merge is the pair with the largest count over all words, weighted by how often each word occurs'
    assert tuple(second) != ('a', 'ab'), '(a, a) and (a, ab) tie with 4 each: the older right token wins, and single letters are older'
    assert tuple(second) != ('ab', 'ab'), '(ab, ab) occurs only once in each of the 3 words abab'
    assert tuple(second) == ('a', 'a'), 'recount all pairs after the first merge, with the new token ab in place'

@test_case(points=None, hidden=False)
def test_n_tokens(first, second, n_tokens):
    words = {'aaab': 4, 'abab': 3, 'ba': 2}
    learned = [tuple(first), tuple(second)] == [('a', 'b'), ('a', 'a')]
    assert learned, 'n_tokens counts what is left after both merges: get `first` and `second` right before it'
    right = sum((n * len(w.replace('ab', 'X').replace('aa', 'Y')) for w, n in words.items()))
    assert n_tokens != 32, 'that is the number of letters before any merge'
    assert n_tokens != 22, 'that is the count after the first merge: the second one saves some, too'
    assert n_tokens != 6, 'weigh each word by how often it occurs'
    assert n_tokens == right, 'each merge saves as many tokens as its pair occurs: start from 4 x 4 + 3 x 4 + 2 x 2 letters'

