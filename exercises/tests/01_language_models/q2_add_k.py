from otter.test_files import test_case

OK_FORMAT = False

name = "q2_add_k"
points = 2

@test_case(points=None, hidden=False)
def test_small_text(add_k):
    import torch
    ids = [0, 1, 0, 2, 0, 1]
    p = add_k(ids, (0,), 4, 0.5)
    assert isinstance(p, torch.Tensor) and tuple(p.shape) == (4,), 'return a tensor of v probabilities'
    assert p.dtype == torch.float64, 'use torch.float64, as the text of the question asks'
    counts = torch.tensor([0, 2, 1, 0], dtype=torch.float64)
    assert not torch.allclose(p, counts / 3), 'these are the relative frequencies: k is missing'
    assert not torch.allclose(p, (counts + 0.5) / 3), 'the probabilities sum to more than 1: the denominator grows by k for each of the v entries'
    assert not torch.allclose(p, (counts + 0.5) / 3.5), 'the denominator grows by k for each of the v entries, not once'
    assert not torch.allclose(p, (counts + 0.5) / (counts + 0.5)[:3].sum()), 'entries that never occurred count in the sum, too'
    assert not torch.allclose(p, (counts + 1) / 7), 'that is k = 1: use the k that is given'
    before = torch.tensor([0, 1, 1, 0], dtype=torch.float64)
    assert not torch.allclose(p, (before + 0.5) / 4), 'you counted what stands *before* the context, or each follower once: count every token after it'
    off = (p - (counts + 0.5) / 5).abs().max()
    assert not 1e-12 < off < 1e-06, 'right to seven digits only: count in torch.float64 from the start, not only at the end'
    assert ids == [0, 1, 0, 2, 0, 1], 'the list you were given has changed: leave the text as it is'
    assert off < 1e-12, 'after token 0 came 1, 2 and 1: (2 + 0.5) / (3 + 4 * 0.5) for token 1, and so on'

@test_case(points=None, hidden=False)
def test_contexts(add_k):
    import torch
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3]
    p = add_k(ids, (), 10, 1.0)
    right = torch.bincount(torch.tensor(ids), minlength=10).double() + 1
    assert torch.allclose(p, right / right.sum(), atol=1e-12), 'an empty context: count every token of the text, the first one and the last one, too'
    p = add_k(ids, (7, 7), 10, 0.3)
    assert p.isfinite().all(), 'a context that never occurs must not divide by zero'
    assert torch.allclose(p, torch.full((10,), 0.1, dtype=torch.float64), atol=1e-12), 'a context that never occurs has k everywhere: the uniform distribution'
    p = add_k(ids, (3,), 10, 0.01)
    assert abs(p.sum() - 1) < 1e-09, f'the probabilities sum to {p.sum():.3f}: is the last token of the text counted as a context?'

@test_case(points=None, hidden=False)
def test_two_tokens_of_context(add_k):
    import torch
    ids = [1, 1, 1, 1, 2, 1, 0, 1, 2]
    p = add_k(ids, (1, 2), 4, 1.0)
    assert not torch.allclose(p, torch.tensor([2, 1, 1, 1]).double() / 5), '(1, 2) is 1 and then 2: you look for 2 and then 1'
    assert torch.allclose(p, torch.tensor([1, 2, 1, 1]).double() / 5, atol=1e-12), '1, 2 is followed once, by 1; at the end of the text nothing follows it'
    p = add_k(ids, (1, 1), 4, 1.0)
    assert torch.allclose(p, torch.tensor([1, 3, 2, 1]).double() / 7, atol=1e-12), 'in 1, 1, 1, 1, 2 the context (1, 1) is followed three times, by 1, 1 and 2: its places overlap'

