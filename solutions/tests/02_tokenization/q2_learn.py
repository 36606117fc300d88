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

@test_case(points=None, hidden=False)
def test_ties_and_overlaps(learn):

    def pairs(counts, n_merges):
        return [tuple(m) for m in learn(dict(counts), n_merges)]
    assert pairs({'zy': 2, 'ab': 2}, 2) == [('a', 'b'), ('z', 'y')], 'a tie goes to the pair that is first in sorted order, not to the one that was met first'
    assert pairs({'aaa': 2, 'bc': 3}, 1) == [('a', 'a')], '(a, a) stands in aaa in two places: 2 x 2 = 4, more than 3'
    assert pairs({'abab': 2}, 2) == [('a', 'b'), ('ab', 'ab')], 'merge the pair wherever it stands in a word, not only in the first place'

@test_case(points=None, hidden=False)
def test_edges(learn):

    def pairs(counts, n_merges):
        return [tuple(m) for m in learn(counts, n_merges)]
    assert pairs({'ab': 2}, 0) == [], 'n_merges = 0 asks for no merge'
    assert pairs({}, 3) == [] and pairs({'a': 4}, 3) == [], 'words without a pair give no merge'
    assert pairs({'AB': 3, 'ab': 2}, 1) == [('A', 'B')], 'A and a are different characters: take the words as they are'
    assert pairs({'éa': 3}, 1) == [('é', 'a')], 'words start as characters here, not as bytes: é is one token'
    counts = {'low': 5, 'lower': 2}
    learn(counts, 3)
    assert counts == {'low': 5, 'lower': 2}, 'leave counts as it is: whoever calls learn may need it again'

@test_case(points=None, hidden=True)
def test_against_a_recount(learn):
    import random
    import re

    def oracle(counts, n_merges):
        symbols, words, merges = ({}, dict(counts), [])

        def name(c):
            return symbols.get(c, c)
        for step in range(n_merges):
            totals = {}
            for word, n in words.items():
                for i in range(len(word) - 1):
                    totals[word[i:i + 2]] = totals.get(word[i:i + 2], 0) + n
            if not totals:
                break
            pair = sorted(totals, key=lambda p: (-totals[p], name(p[0]), name(p[1])))[0]
            merges.append((name(pair[0]), name(pair[1])))
            new = next((s for s, text in symbols.items() if text == name(pair[0]) + name(pair[1])), chr(57344 + step))
            symbols[new] = name(pair[0]) + name(pair[1])
            fresh = {}
            for word, n in words.items():
                key = word.replace(pair, new)
                fresh[key] = fresh.get(key, 0) + n
            words = fresh
        return merges
    draw = random.Random(0)
    for trial in range(40):
        words = {''.join(draw.choices('abc', k=draw.randrange(1, 9))): draw.randrange(1, 6) for _ in range(7)}
        right = oracle(words, 8)
        ours = [tuple(m) for m in learn(dict(words), 8)]
        same = next((i for i, (x, y) in enumerate(zip(ours, right)) if x != y), min(len(ours), len(right)))
        assert ours == right, f'merge number {same + 1} from {words} is {ours[same:same + 1]}, expected {right[same:same + 1]}: check weights, ties, overlaps, and that old counts are not reused'

