from otter.test_files import test_case

OK_FORMAT = False

name = "q4_padding_bug"
points = 2

@test_case(points=None, hidden=False)
def test_same_values(padded_attention):
    import torch
    torch.manual_seed(0)
    q, k = (torch.randn(2, 1, 4, 3, dtype=torch.float64) for _ in range(2))
    v = torch.ones(2, 1, 4, 3, dtype=torch.float64)
    out = padded_attention(q, k, v, torch.tensor([[True] * 4, [True, True, False, False]]))
    assert tuple(out.shape) == (2, 1, 4, 3), 'the result must have the shape of q'
    assert not out[0].isnan().any(), 'NaN in the sentence without padding, where every key may be seen: is `real` inverted? True marks a real token'
    assert not out[1, :, :2].isnan().any(), 'there are NaNs at real tokens: each of them must see the real keys'
    assert out.isfinite().all(), 'NaN at the places of padding, from where the next layer would spread it: hide padded keys, not whole rows'
    assert (out[0] - 1).abs().max() < 1e-09, 'every value is 1, so a weighted mean is 1, also where nothing is padded'
    gap = (out[1, :, :2] - 1).abs().max().item()
    assert gap < 1e-09, 'every value is 1, so a weighted mean is 1: for the padded sentence the weights do not sum to 1'

@test_case(points=None, hidden=False)
def test_padding_does_not_matter(padded_attention):
    import torch
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 2, 5, 3, dtype=torch.float64) for _ in range(3))
    given = (q.clone(), k.clone(), v.clone())
    alone = torch.nn.functional.scaled_dot_product_attention(q[:, :, :3], k[:, :, :3], v[:, :, :3])
    out = padded_attention(q, k, v, torch.tensor([[True, True, True, False, False]]))
    assert all(map(torch.equal, given, (q, k, v))), 'you changed q, k or v in place: the caller still needs them; compute a new tensor'
    padding = torch.nn.functional.scaled_dot_product_attention(q[:, :, :3], k[:, :, 3:], v[:, :, 3:])
    assert not (out[:, :, :3] - padding).abs().max() < 1e-09, 'inverted: the queries look at the padding and at nothing else; True in `real` marks a real token'
    gap = (out[:, :, :3] - alone).abs().max().item()
    assert gap < 1e-09, f'three tokens alone and the same three with padding behind them differ by {gap:.2g}: no weight may go to padded keys, and the others must sum to 1'
    alone = torch.nn.functional.scaled_dot_product_attention(q[:, :, 2:], k[:, :, 2:], v[:, :, 2:])
    out = padded_attention(q, k, v, torch.tensor([[False, False, True, True, True]]))[:, :, 2:]
    assert (out - alone).abs().max() < 1e-09, 'with padding in front of a sentence the result is wrong: use the places that `real` marks, not only their number'

@test_case(points=None, hidden=False)
def test_large_scores(padded_attention):
    import torch
    v = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64).view(1, 1, 3, 1)
    q, real = (torch.full((1, 1, 3, 1), 10.0, dtype=torch.float64), torch.tensor([[True, True, False]]))
    for keys in ([-30.0, -40.0, 0.0], [100.0, 90.0, 0.0]):
        k = torch.tensor(keys, dtype=torch.float64).view(1, 1, 3, 1)
        out = padded_attention(q, k, v, real)[0, 0, 0, 0].item()
        assert out == out, f'NaN: scores of {10 * keys[0]:.0f} are too large for exp() alone; softmax subtracts the largest first'
        assert abs(out - 30) > 1e-06, 'the real scores are -300 and -400, and the padded key wins: hide it with -math.inf, not with a number such as -100'
        assert abs(out - 10) < 1e-06, f'of the real scores, {10 * keys[0]:.0f} and {10 * keys[1]:.0f}, the first takes all: 10, not {out}'

