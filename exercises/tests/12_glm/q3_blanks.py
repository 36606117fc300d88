from otter.test_files import test_case

OK_FORMAT = False

name = "q3_blanks"
points = 4

@test_case(points=None, hidden=False)
def test_the_example_of_the_paper(cut):
    text, spans, order = ([1, 2, 3, 4, 5, 6], [(2, 3), (4, 6)], [1, 0])
    out = cut(list(text), list(spans), list(order), 70, 71, 72)
    assert out is not None, 'cut returned nothing: is the `return` missing?'
    assert isinstance(out, (tuple, list)) and len(out) == 4, 'return four lists: tokens, targets, places, inner'
    tokens, targets, places, inner = (list(part) for part in out)
    assert tokens[:5] == [1, 2, 70, 4, 70], f'part A is {tokens[:5]}: the text, with one mask token (70) for each span, however long the span is'
    assert tokens[5:] != [71, 3, 71, 5, 6], 'part B keeps the order of the text: `order` says which span comes first'
    assert 72 not in tokens, 'the end token is predicted, not read: it is a target only'
    assert tokens[5:] == [71, 5, 6, 71, 3], f'part B is {tokens[5:]}: for each span the start token (71), then its tokens'
    assert targets[:5] == [None] * 5, f"part A's targets are {targets[:5]}: nothing is predicted there, so None"
    assert targets[5:] != [71, 5, 6, 71, 3], 'a target is the token that comes next, not the one that is read'
    assert targets[5:] == [5, 6, 72, 3, 72], f"part B's targets are {targets[5:]}: the next token of the span, and the end token (72) at its last"
    assert places[:5] == [0, 1, 2, 3, 4], f"part A's places are {places[:5]}: 0, 1, 2, …, holes included"
    assert places[5:] != [5, 6, 7, 8, 9], 'part B does not count on: its tokens stand at the place of their hole'
    assert places[5:] == [4, 4, 4, 2, 2], f"part B's places are {places[5:]}: all tokens of a span have that of its hole"
    assert inner[:5] == [0] * 5, f"part A's block positions are {inner[:5]}: 0 throughout"
    assert inner[5:] == [1, 2, 3, 1, 2], f"part B's block positions are {inner[5:]}: 1, 2, 3, … anew in each span"

@test_case(points=None, hidden=False)
def test_three_spans(cut):
    text = list(range(30, 50))
    given = list(text)
    out = cut(given, [(0, 3), (5, 6), (9, 13)], [2, 0, 1], 70, 71, 72)
    assert given == text, 'your function changed its input: build new lists'
    tokens, targets, places, inner = (list(part) for part in out)
    assert len(tokens) == len(targets) == len(places) == len(inner), 'the four lists must have one length'
    part_a = [70, 33, 34, 70, 36, 37, 38, 70, *range(43, 50)]
    assert tokens[:15] == part_a, f'part A is {tokens[:15]}, and not {part_a}'
    assert tokens[15:] != [71, 35, 71, 39, 40, 41, 42, 71, 30, 31, 32], 'order [2, 0, 1]: span 2 is written first, then span 0; it does not say where each span goes'
    assert tokens[15:] != [71, 39, 40, 41, 42, 71, 35, 71, 30, 31, 32], '`order` is not merely the text turned round'
    part_b = [71, 39, 40, 41, 42, 71, 30, 31, 32, 71, 35]
    assert tokens[15:] == part_b, f'part B is {tokens[15:]}, and not {part_b}'
    ahead = [39, 40, 41, 42, 72, 30, 31, 32, 72, 35, 72]
    assert targets == [None] * 15 + ahead, f'the targets are {targets}: None in part A, then {ahead}'
    assert places[:15] == list(range(15)), f"part A's places are {places[:15]}: 0 to 14, however long the spans were"
    assert places[15:] != [9] * 5 + [0] * 4 + [5] * 2, 'a hole is not where its span began in the text: spans before it take one place each'
    assert places[15:] == [7] * 5 + [0] * 4 + [3] * 2, f"the holes stand at 0, 3 and 7 of part A; part B's places are {places[15:]}"
    counts = [1, 2, 3, 4, 5, 1, 2, 3, 4, 1, 2]
    assert inner == [0] * 15 + counts, f'block positions {inner}: 0 in part A, then {counts}'

