from otter.test_files import test_case

OK_FORMAT = False

name = "q3_pairs"
points = 3

@test_case(points=None, hidden=False)
def test_labels_tell_the_truth(draw_pair):
    import copy
    import random
    sizes = [1, 2, 3, 9, 20]
    documents = [[f'document {d} sentence {s}' for s in range(n)] for d, n in enumerate(sizes)]
    rng, given, found = (random.Random(0), copy.deepcopy(documents), [])
    for _ in range(6000):
        try:
            answer = draw_pair(given, rng)
        except IndexError as error:
            raise AssertionError('the last sentence of a document has no successor: it cannot be the first') from error
        assert answer is not None and len(answer) == 3, 'return three things: first, second, label'
        found.append(answer)
    assert given == documents, 'your function changed the documents'
    at = {text: (d, s) for d, texts in enumerate(documents) for s, text in enumerate(texts)}
    assert all((a in at and b in at for a, b, _ in found)), 'first and second are sentences of the documents'
    assert {label for *_, label in found} <= {0, 1}, 'the label is 0 or 1'
    pairs = [(at[a], at[b], label) for a, b, label in found]
    follows = [(a, b) for a, b, label in pairs if label == 0]
    elsewhere = [(a, b) for a, b, label in pairs if label == 1]
    assert follows and elsewhere, 'both labels must occur: each in half of the cases'
    share = len(elsewhere) / len(pairs)
    assert abs(share - 0.5) < 0.04, f'{share:.0%} of the labels are 1: half of the cases are wanted'
    swapped = sum((b == (a[0], a[1] + 1) for a, b in elsewhere)) > 0.9 * len(elsewhere)
    assert not swapped, 'label 0 means that the second sentence follows; you have 0 and 1 the other way round'
    assert all((b == (a[0], a[1] + 1) for a, b in follows)), 'with label 0 the second sentence is the next one of the same document'
    assert all((a[0] != b[0] for a, b in elsewhere)), 'with label 1 the second sentence comes from *another* document'

@test_case(points=None, hidden=False)
def test_everyone_has_a_chance(draw_pair):
    import random
    from collections import Counter
    sizes = [1, 2, 3, 9, 20]
    documents = [[(d, s) for s in range(n)] for d, n in enumerate(sizes)]
    rng = random.Random(1)
    found = [draw_pair(documents, rng) for _ in range(6000)]
    first = Counter((a for a, *_ in found))
    assert len(first) == 30, f'{len(first)} sentences came first; 30 have a successor and may come first'
    long = sum((n for (d, _), n in first.items() if d == 4)) / 6000
    assert abs(long - 0.25) > 0.05, 'you drew a document first: then sentences of short documents come up more often'
    assert abs(long - 19 / 30) < 0.04, 'every sentence with a successor has the same chance to come first'
    from_long = [b for a, b, label in found if label == 1 and a[0] == 4]
    second = Counter((d for d, _ in from_long))
    assert second[0] > 0, 'a document of one sentence can give the random one'
    low, high = (min((second[d] for d in range(4))), max((second[d] for d in range(4))))
    assert high < 1.5 * low, f'drawn from the other documents {dict(second)} times: each has the same chance'
    spread = Counter((s for d, s in from_long if d == 3))
    assert len(spread) == 9, 'any sentence of the other document may be drawn, the first and the last too'
    mean = sum(spread.values()) / 9
    uneven = sum(((n - mean) ** 2 for n in spread.values())) / mean
    assert uneven < 50, f'the nine sentences of a document came {dict(sorted(spread.items()))} times: each has the same chance'

@test_case(points=None, hidden=False)
def test_places_and_not_texts(draw_pair):
    import random
    from collections import Counter
    documents = [['amen', 'a1', 'amen', 'a2', 'a3'], ['amen', 'b1'], ['x', 'y', 'z'], ['x', 'y', 'z']]
    wanted, places = (Counter(), [(d, s) for d in range(4) for s in range(len(documents[d]) - 1)])
    for d, s in places:
        wanted[documents[d][s], documents[d][s + 1], 0] += 0.5 / len(places)
        for i in {0, 1, 2, 3} - {d}:
            for second in documents[i]:
                wanted[documents[d][s], second, 1] += 0.5 / len(places) / 3 / len(documents[i])
    rng = random.Random(2)
    found = Counter((tuple(draw_pair(documents, rng)) for _ in range(20000)))
    assert set(found) <= set(wanted), f'{sorted(set(found) - set(wanted))[0]} was drawn, which cannot be right'
    assert found['amen', 'a2', 0], '`amen` stands twice in one document, each time before another sentence: keep its place, not its text'
    assert found['amen', 'amen', 1], '`amen` stands in two documents, and they are other documents all the same: compare numbers, not texts'
    assert found['x', 'x', 1], 'two documents with the same sentences are two documents: compare numbers, not texts'
    share = sum((n for (*_, label), n in found.items() if label)) / 20000
    assert abs(share - 0.5) < 0.02, f'{share:.1%} of 20,000 labels are 1: half of the cases are wanted'
    uneven = sum(((found[key] - 20000 * p) ** 2 / (20000 * p) for key, p in wanted.items()))
    assert uneven < len(wanted) + 7 * (2 * len(wanted)) ** 0.5, 'where sentences occur twice, the pairs do not come as often as they should: draw places, not texts'

@test_case(points=None, hidden=False)
def test_rng_alone_decides(draw_pair):
    import random
    documents = [[f'{d} {s}' for s in range(9)] for d in range(5)]
    runs = [[draw_pair(documents, rng) for _ in range(40)] for rng in map(random.Random, (3, 3, 4))]
    assert runs[0] == runs[1], 'the same seed must give the same pairs: take every random number from `rng`'
    assert runs[0] != runs[2], 'another seed must give other pairs: take every random number from `rng`'

@test_case(points=None, hidden=True)
def test_two_documents_with_the_same_text(draw_pair):
    import random
    documents = [['a', 'b', 'c'], ['a', 'b', 'c']]
    try:
        found = [draw_pair(documents, random.Random(i)) for i in range(400)]
    except (IndexError, ValueError) as error:
        raise AssertionError('documents with the same sentences are different documents: compare numbers, not texts') from error
    label = sum((label for *_, label in found)) / 400
    assert 0.4 < label < 0.6, 'half of the cases, also where two documents hold the same text: compare numbers, not texts'
    assert {b for _, b, label in found if label == 1} == {'a', 'b', 'c'}, 'any sentence of the other document may be drawn'

