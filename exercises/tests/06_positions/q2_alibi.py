from otter.test_files import test_case

OK_FORMAT = False

name = "q2_alibi"
points = 2

@test_case(points=None, hidden=False)
def test_last_query(alibi):
    import torch
    bias = torch.as_tensor(alibi(8, 1, 4))
    assert tuple(bias.shape) == (8, 1, 4), f'the shape must be (heads, t, s) = (8, 1, 4), not {tuple(bias.shape)}'
    first = bias[0, 0].double()
    right = torch.tensor([-1.5, -1.0, -0.5, 0.0], dtype=torch.float64)
    assert not torch.allclose(first, -right), 'far keys must get *lower* scores: the bias is negative'
    assert not torch.allclose(first, torch.tensor([0.0, -0.5, -1.0, -1.5]).double()), 'the single query is the last one of the sequence: its own key is the last, with bias 0'
    assert not torch.allclose(first, right + 0.5) and (not torch.allclose(first, right - 0.5)), "a token's distance to itself is 0"
    assert not torch.allclose(first, 2 * right), 'the first of eight slopes is 1/2: powers start at 2^(-8/n)'
    assert torch.allclose(first, right), 'head 0 of 8 has slope 1/2, and the distances are 3, 2, 1, 0'

@test_case(points=None, hidden=False)
def test_slopes(alibi):
    import torch
    for n in (1, 2, 4, 8, 16):
        bias = torch.as_tensor(alibi(n, 2, 3)).double()
        assert tuple(bias.shape) == (n, 2, 3), f'the shape must be ({n}, 2, 3), not {tuple(bias.shape)}'
        slopes = -bias[:, 1, 1]
        right = torch.tensor([2.0 ** (-8 * (i + 1) / n) for i in range(n)]).double()
        if n > 1:
            assert not torch.allclose(slopes, right.flip(0)), 'the first head is the steepest'
        assert torch.allclose(slopes, right), f'slopes of {n} heads: expected 2^(-8/{n}) to the powers 1 ... {n}, the last of them 1/256'

@test_case(points=None, hidden=False)
def test_future_keys(alibi):
    import torch
    bias = torch.as_tensor(alibi(8, 3, 3)).double()
    assert tuple(bias.shape) == (8, 3, 3), f'the shape must be (8, 3, 3), not {tuple(bias.shape)}'
    ahead = bias[0, 0, 2].item()
    assert abs(ahead - 1) > 1e-06, 'a key two places ahead is as far as one two places back: take the absolute value of the distance'
    assert abs(ahead + 1) < 1e-06, f'query 0, key 2, slope 1/2: the bias is -1, not {ahead:.4g}; future keys are filled in, too'

