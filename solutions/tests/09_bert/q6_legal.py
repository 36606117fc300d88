from otter.test_files import test_case

OK_FORMAT = False

name = "q6_legal"
points = 3

@test_case(points=None, hidden=False)
def test_a_sentence(legal_tags):
    import torch
    word_of = [None, 0, 1, 1, 2, 3, 3, 3, None, None]
    scores = torch.zeros(10, 3)
    scores[1] = torch.tensor([3.0, 0.0, 1.0])
    scores[2], scores[3] = (torch.tensor([1.0, 2.0, 2.5]), torch.tensor([9.0, 0.0, 0.0]))
    scores[4] = torch.tensor([0.0, 1.0, 2.0])
    scores[5], scores[6], scores[7] = (torch.tensor([4.0, 0.0, 0.0]), torch.tensor([0.0, 9.0, 0.0]), torch.tensor([0.0, 0.0, 9.0]))
    given, places = (scores.clone(), list(word_of))
    tags = legal_tags(given, places)
    assert tags is not None, 'return a list with one tag for each word'
    assert torch.equal(given, scores) and places == word_of, 'your function changed its input'
    tags = [int(tag) for tag in tags]
    assert len(tags) == 4, f'{len(tags)} tags for four words: None marks pieces of no word, and of each word one piece counts'
    assert tags != [0, 2, 2, 0], 'a 2 stands after a 0: choosing the best tag of each word is not enough'
    assert tags == [0, 1, 2, 0], f"{tags}: the first pieces' scores have the largest legal sum with [0, 1, 2, 0]"
    assert all((type(tag) is int for tag in legal_tags(scores, word_of))), 'the tags are right, but return Python integers'

@test_case(points=None, hidden=False)
def test_against_all_sequences(legal_tags):
    import itertools
    import torch
    g = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 5, 7) * 6:
        lengths = torch.randint(1, 4, (n,), generator=g).tolist()
        word_of = [None, *(w for w, k in enumerate(lengths) for _ in range(k)), None]
        scores = torch.randn(len(word_of), 3, generator=g).double()
        first = [word_of.index(w) for w in range(n)]
        legal = [c for c in itertools.product(range(3), repeat=n) if all((b != 2 or a for a, b in zip((0, *c), c)))]
        total = lambda c: sum((scores[i, tag].item() for i, tag in zip(first, c)))
        best = max(legal, key=total)
        found = [int(tag) for tag in legal_tags(scores.clone(), list(word_of))]
        assert len(found) == n, f'{len(found)} tags for {n} words'
        assert found[0] != 2, 'a 2 comes first: no name can be continued there'
        assert tuple(found) in legal, f'{found}: a 2 stands after a 0'
        lost = total(best) - total(found)
        assert lost < 0.0001, f'{found} is legal, and {list(best)} is better by {lost:.3f} ({n} words): look at whole sequences, not at one word after the other'

@test_case(points=None, hidden=False)
def test_numbers_of_words(legal_tags):
    import torch
    scores = torch.tensor([[9.0, 0, 0], [0.0, 5, 0], [0.0, 0, 5], [9.0, 0, 0], [0.0, 0, 5], [0.0, 9, 0]])
    found = [int(tag) for tag in legal_tags(scores, [None, 3, 7, 7, 8, None])]
    assert found == [1, 2, 2], f'{found}: three words, numbered 3, 7 and 8 (words without pieces have no number here), are tagged 1, 2, 2'
    assert list(legal_tags(scores[:2], [None, None])) == [], 'without words there are no tags: an empty list'
    many = torch.zeros(100, 3)
    many[:, 2] = 1.0
    found = [int(tag) for tag in legal_tags(many, list(range(100)))]
    assert found == [1] + [2] * 99, 'a hundred words that all score best as 2: the first must be 1, the others 2'

@test_case(points=None, hidden=True)
def test_against_the_library(legal_tags):
    import torch
    from minillm.nn.crf import Chain, viterbi
    g = torch.Generator().manual_seed(1)
    move, start = (torch.zeros(3, 3).double(), torch.zeros(3).double())
    move[0, 2] = start[2] = -1000000000.0
    for n in (1, 4, 40, 200):
        scores = torch.randn(2 * n, 3, generator=g).double()
        tags, _ = viterbi(scores[None, ::2], Chain(start, move, torch.zeros(3).double()))
        found = [int(tag) for tag in legal_tags(scores, [i // 2 for i in range(2 * n)])]
        assert found == tags[0].tolist(), f"differs from minillm's viterbi with {n} words of two pieces"

