from otter.test_files import test_case

OK_FORMAT = False

name = "q2_corrupt"
points = 3

@test_case(points=None, hidden=False)
def test_example(corrupt):
    from minillm.data.denoising import corrupt_spans
    import torch
    tokens, taken, marks = ([7, 8, 9, 5, 6], [False, True, True, False, True], list(range(90, 99)))
    found = corrupt(list(tokens), list(taken), list(marks))
    assert isinstance(found, tuple | list) and len(found) == 2, 'return two lists: (source, target)'
    source, target = (list(map(int, part)) for part in found)
    assert source != [7, 90, 91, 5, 92], 'neighboring tokens that go are one span and get one sentinel'
    assert source != [7, 5], 'the source needs a sentinel in the place of each span'
    assert source != [7, 90, 5, 90], 'each span has a sentinel of its own: use the next one'
    assert source == [7, 90, 5, 91], f'the source of the example is [7, 90, 5, 91], not {source}'
    assert target != [90, 8, 9, 91, 6], 'the target closes with one more sentinel'
    assert target != [8, 9, 6, 92] and target != [8, 9, 6], 'each span stands behind its sentinel in the target'
    oracle = corrupt_spans(torch.tensor(tokens), torch.tensor(taken), marks)
    assert [source, target] == [part.tolist() for part in oracle], f'the target of the example is wrong: {target}'

@test_case(points=None, hidden=False)
def test_edges(corrupt):
    cases = {'a span at the very beginning': ([1, 2, 3], [True, False, False], ([50, 2, 3], [50, 1, 51])), 'nothing taken out': ([1, 2, 3], [False] * 3, ([1, 2, 3], [50])), 'everything taken out': ([1, 2, 3], [True] * 3, ([50], [50, 1, 2, 3, 51])), 'one token between two spans': ([1, 2, 3], [True, False, True], ([50, 2, 51], [50, 1, 51, 3, 52])), 'the same token twice': ([4, 4, 4, 4], [False, True, False, True], ([4, 50, 4, 51], [50, 4, 51, 4, 52]))}
    for name, (tokens, taken, right) in cases.items():
        given = (list(tokens), list(taken), [50, 51, 52, 53])
        found = tuple((list(map(int, part)) for part in corrupt(*given)))
        assert given == (tokens, taken, [50, 51, 52, 53]), 'your function changed its arguments: build new lists'
        assert found == right, f'{name}: {tokens} with {taken} should give {right}, not {found}'
    for marks in ([99, 98, 97, 96], [99, 90, 95, 91]):
        found = tuple((list(map(int, part)) for part in corrupt([1, 2, 3], [True, False, True], list(marks))))
        right = ([marks[0], 2, marks[1]], [marks[0], 1, marks[1], 3, marks[2]])
        assert found == right, f'sentinels are used in the order in which they are given: with {marks}, [1, 2, 3] without 1 and 3 should give {right}, not {found}'

@test_case(points=None, hidden=True)
def test_against_the_library(corrupt):
    import random
    import torch
    from minillm.data.denoising import corrupt_spans
    random.seed(3)
    for _ in range(60):
        n = random.randint(1, 40)
        tokens = [random.randint(0, 60) for _ in range(n)]
        taken = [random.random() < 0.4 for _ in range(n)]
        marks = random.sample(range(100, 200), 45)
        found = [list(map(int, part)) for part in corrupt(list(tokens), list(taken), list(marks))]
        right = [part.tolist() for part in corrupt_spans(torch.tensor(tokens), torch.tensor(taken), marks)]
        assert found == right, f'wrong for {tokens} with {taken}: {found}, but {right} was expected'

