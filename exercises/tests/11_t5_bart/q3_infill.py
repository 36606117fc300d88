from otter.test_files import test_case

OK_FORMAT = False

name = "q3_infill"
points = 3

@test_case(points=None, hidden=False)
def test_example(infill):
    given, spans = ([5, 6, 7, 8], [(1, 2), (3, 0)])
    found = infill(given, spans, 99)
    assert found is not None, 'infill returned nothing: is the `return` missing?'
    assert given == [5, 6, 7, 8], 'your function changed its input: build a new list'
    assert spans == [(1, 2), (3, 0)], 'your function changed the list of spans: leave it as it is'
    found = list(map(int, found))
    assert found != [5, 99, 8], 'a span of length 0 leaves a mask too: the model has to learn that nothing is missing there'
    assert found != [5, 99, 99, 99, 8], 'a span of two tokens becomes one mask, not two'
    assert found != [5, 99, 8, 99], 'the second mask is one place too late. Either you replace inside the list from the left, and after the first span all later places have moved (copy into a new list); or your mask of a span of length 0 stands behind token `start` instead of in front of it'
    assert found == [5, 99, 99, 8], f'the example gives [5, 99, 99, 8], not {found}'

@test_case(points=None, hidden=False)
def test_edges(infill):
    cases = {'no spans': ([1, 2, 3], [], [1, 2, 3]), 'a mask at the end, where nothing is missing': ([1, 2, 3], [(3, 0)], [1, 2, 3, 9]), 'a mask at the beginning': ([1, 2, 3], [(0, 0)], [9, 1, 2, 3]), 'the whole text': ([1, 2, 3], [(0, 3)], [9]), 'two spans that touch': ([1, 2, 3, 4], [(0, 2), (2, 1)], [9, 9, 4]), 'two spans with one start': ([1, 2, 3, 4], [(1, 0), (1, 2)], [1, 9, 9, 4]), 'two masks in one place': ([1, 2], [(1, 0), (1, 0)], [1, 9, 9, 2]), 'the text after the last span': ([1, 2, 3, 4, 5], [(1, 1)], [1, 9, 3, 4, 5]), 'the last tokens': ([1, 2, 3], [(1, 2)], [1, 9])}
    for name, (tokens, spans, right) in cases.items():
        found = list(map(int, infill(list(tokens), list(spans), 9)))
        assert found == right, f'{name}: {tokens} with {spans} should give {right}, not {found}'

