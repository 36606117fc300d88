from otter.test_files import test_case

OK_FORMAT = False

name = "q5_analogy_bug"
points = 3

@test_case(points=None, hidden=False)
def test_lengths_do_not_count(solve):
    import torch
    torch.manual_seed(2)
    vectors = torch.randn(40, 6)
    lengths = torch.rand(40, 1).mul(4).exp()
    questions = torch.rand(60, 40).argsort(1)[:, :3].tolist()
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    for a, b, c in questions:
        found = solve(vectors * lengths, a, b, c)
        assert isinstance(found, int), 'return a row as a Python int: call .item()'
        assert found not in (a, b, c), 'the three words of the question are no answers'
        scores = torch.nn.functional.cosine_similarity(unit, (unit[b] - unit[a] + unit[c])[None])
        swapped = torch.nn.functional.cosine_similarity(unit, (unit[a] - unit[b] + unit[c])[None])
        scores[[a, b, c]] = swapped[[a, b, c]] = -2
        assert found == scores.argmax().item() or found != swapped.argmax().item(), 'a and b are swapped: it is b - a + c'
        assert found == scores.argmax().item(), 'not the nearest by cosine: lengths count in the three words and in the candidates'

@test_case(points=None, hidden=False)
def test_leaves_the_table_alone(solve):
    import torch
    torch.manual_seed(3)
    vectors = torch.randn(12, 4) * 5
    before = vectors.clone()
    first = solve(vectors, 0, 1, 2)
    assert isinstance(first, int), 'return a row as a Python int: call .item()'
    assert torch.equal(vectors, before), 'the table of vectors was changed: work on a copy'
    assert solve(vectors, 0, 1, 2) == first, 'asked twice, it gives two answers'

