from otter.test_files import test_case

OK_FORMAT = False

name = "q2_fill"
points = 3

@test_case(points=None, hidden=False)
def test_examples(fill):
    given = ([7, 90, 5, 91], [90, 8, 9, 91, 6, 92], [90, 91, 92])
    found = fill(*(list(part) for part in given))
    assert found is not None, 'fill returned nothing: is the `return` missing?'
    found = [int(token) for token in found]
    assert not {90, 91, 92} & set(found), f'no sentinel may be left in the text, and {found} has one'
    assert found == [7, 8, 9, 5, 6], f'the first example gives [7, 8, 9, 5, 6], not {found}'
    odd = ([7, 90, 5, 91], [3, 91, 6, 92, 4, 91, 2], [90, 91, 92])
    found = [int(token) for token in fill(*(list(part) for part in odd))]
    assert 90 not in found, 'a sentinel that the model did not write leaves nothing: no sentinel stays in the text'
    assert 3 not in found, 'what stands before the first sentinel belongs to no hole'
    assert 4 not in found, 'what stands behind a sentinel that the source does not have is dropped'
    assert found != [7, 6, 5], 'answers go by their sentinels, not by their order'
    assert found != [7, 5, 6, 2], 'the second answer for the same sentinel does not count, nor is it added to the first'
    assert found != [7, 5, 2], 'of two answers for one sentinel the first counts, not the last'
    assert found == [7, 5, 6], f'the second example gives [7, 5, 6], not {found}'

@test_case(points=None, hidden=False)
def test_edges(fill):
    cases = {'no holes': ([1, 2, 3], [50, 9], [50, 51], [1, 2, 3]), 'nothing written': ([1, 50, 2], [], [50, 51], [1, 2]), 'nothing but a hole': ([50], [50, 4, 4, 51], [50, 51], [4, 4]), 'an empty answer': ([1, 50, 2, 51], [50, 51, 7, 52], [50, 51, 52], [1, 2, 7]), 'the first answer is empty, a later one is not': ([1, 50, 2], [50, 51, 8, 50, 9], [50, 51], [1, 2]), 'the answers in the other order': ([1, 50, 2, 51], [51, 8, 50, 7], [50, 51, 52], [1, 7, 2, 8]), 'holes side by side': ([50, 51], [50, 1, 51, 2, 52], [50, 51, 52], [1, 2]), "sentinels that run down, as T5's own": ([1, 99, 2, 98], [99, 5, 98, 6, 97], [99, 98, 97], [1, 5, 2, 6]), 'sentinels in no order': ([1, 60, 30, 12], [60, 40, 12, 6, 88], [60, 12, 88, 7], [1, 40, 30, 6]), 'id 0 is a token like any other': ([0, 50, 2], [50, 0, 51], [50, 51], [0, 0, 2]), 'an answer behind a sentinel that was not in the source': ([1, 50], [50, 3, 53, 4], [50, 51, 52, 53], [1, 3]), 'a sentinel that was not in the source comes first': ([1, 50, 2], [53, 9, 50, 3], [50, 51, 52, 53], [1, 3, 2])}
    for name, (source, written, sentinels, right) in cases.items():
        given = (list(source), list(written), list(sentinels))
        found = [int(token) for token in fill(*given)]
        assert given == (source, written, sentinels), 'your function changed its arguments: build new lists'
        assert found == right, f'{name}: {source} and {written} should give {right}, not {found}'

@test_case(points=None, hidden=True)
def test_against_the_library(fill):
    import random
    import torch
    from minillm.data.denoising import corrupt_spans, restore
    random.seed(3)
    for _ in range(60):
        n = random.randint(1, 40)
        tokens = [random.randint(0, 60) for _ in range(n)]
        taken = [random.random() < 0.4 for _ in range(n)]
        marks = random.sample(range(100, 200), 45)
        source, target = corrupt_spans(torch.tensor(tokens), torch.tensor(taken), marks)
        found = [int(token) for token in fill(source.tolist(), target.tolist(), list(marks))]
        assert found == tokens, f'span corruption is not undone for {tokens} with {taken}: {found}'
        some = [t for t in target.tolist() if random.random() < 0.7]
        found = [int(token) for token in fill(source.tolist(), some, list(marks))]
        closed = [t for t in restore(source, torch.tensor(some, dtype=torch.long), marks).tolist() if t not in marks]
        assert found == closed, f'wrong for the source {source.tolist()} and the answer {some}: {found}, not {closed}'

