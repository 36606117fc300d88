from otter.test_files import test_case

OK_FORMAT = False

name = "q2_pairs"
points = 3

@test_case(points=None, hidden=False)
def test_example(pairs):
    found = pairs([4, 7, 5, -1, 9, 4], 1)
    assert isinstance(found, list), 'return a list of tuples'
    found = [tuple(pair) for pair in found]
    assert not any((-1 in pair for pair in found)), '-1 marks the end of a sentence: it is no word'
    assert (5, 9) not in found, '5 and 9 stand in different sentences'
    assert (4, 4) not in found and (7, 7) not in found, 'a word is not its own context'
    right = [(4, 7), (7, 4), (7, 5), (5, 7), (9, 4), (4, 9)]
    assert sorted(found) == sorted(right), 'each neighbor of each word makes one pair, (center, context)'
    assert found == right, 'order: centers from left to right, and the context of each from left to right'

@test_case(points=None, hidden=False)
def test_repeated_words(pairs):
    found = [tuple(pair) for pair in pairs([3, 3, 8], 2)]
    right = [(3, 3), (3, 8), (3, 3), (3, 8), (8, 3), (8, 3)]
    assert len(found) == 6, "leave out the center's place, not every word equal to the center; and a window of 2 reaches two places"
    assert found == right, 'three words, all within two places of each other: six pairs'

