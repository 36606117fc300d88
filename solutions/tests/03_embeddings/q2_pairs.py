from otter.test_files import test_case

OK_FORMAT = False

name = "q2_pairs"
points = 3

@test_case(points=None, hidden=False)
def test_example(pairs):
    found = pairs([4, 7, 5, -1, 9, 4], 1)
    assert isinstance(found, list), 'return a list of tuples'
    assert all((isinstance(pair, tuple) for pair in found)), 'each pair is a tuple, (center, context)'
    assert not any((-1 in pair for pair in found)), '-1 marks the end of a sentence: it is no word'
    assert (5, 9) not in found, '5 and 9 stand in different sentences'
    assert (4, 4) not in found and (7, 7) not in found, 'a word is not its own context'
    right = [(4, 7), (7, 4), (7, 5), (5, 7), (9, 4), (4, 9)]
    assert sorted(found) == sorted(right), 'each neighbor of each word makes one pair, (center, context)'
    assert found == right, 'order: centers from left to right, and the context of each from left to right'

@test_case(points=None, hidden=False)
def test_repeated_words(pairs):
    found = pairs([3, 3, 8], 2)
    right = [(3, 3), (3, 8), (3, 3), (3, 8), (8, 3), (8, 3)]
    assert len(found) == 6, "leave out the center's place, not every word equal to the center; and a window of 2 reaches two places"
    assert found == right, 'three words, all within two places of each other: six pairs'

@test_case(points=None, hidden=False)
def test_sentences(pairs):
    stream = [4, 7, 5, -1, -1, 9, -1, 8, 0, 6, 2]
    given = list(stream)
    found = pairs(given, 3)
    assert given == stream, 'the list that was handed in is changed: work on a copy'
    across = [(a, b) for a, b in found if (a in (4, 7, 5)) != (b in (4, 7, 5)) or 9 in (a, b)]
    assert not across, f'{across[0]} stand in different sentences: a window ends at -1, however far it reaches'
    assert any((0 in pair for pair in found)) or not any((8 in pair for pair in found)), '0 is a word like the others'
    right = [(4, 7), (4, 5), (7, 4), (7, 5), (5, 4), (5, 7)]
    right += [(a, b) for a in (8, 0, 6, 2) for b in (8, 0, 6, 2) if a != b]
    missing = set(right) - set(found)
    assert not missing, f'window 3: {min(missing)} is missing; a sentence may be empty or one word long'
    assert found == right, 'window 3: the pairs or their order differ: the context goes from left to right'

@test_case(points=None, hidden=True)
def test_against_brute_force(pairs):
    import random
    rng = random.Random(3)
    for window in (1, 2, 3, 10):
        stream = [rng.choice([-1, 0, 1, 2, 3, 4]) for _ in range(60)]
        number, sentence_of = (0, [])
        for word in stream:
            number += word < 0
            sentence_of.append(number)
        right = [(stream[i], stream[j]) for i in range(60) for j in range(60) if i != j and abs(i - j) <= window and (min(stream[i], stream[j]) >= 0) and (sentence_of[i] == sentence_of[j])]
        found = pairs(stream, window)
        assert sorted(found) == sorted(right), f'window {window}: the pairs differ; two -1 in a row and sentences of one word are possible'
        assert found == right, f'window {window}: the right pairs in another order'
    assert pairs([], 2) == [] == pairs([-1, -1], 2), 'no words, no pairs'

