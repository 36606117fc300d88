from otter.test_files import test_case

OK_FORMAT = False

name = "q3_grouped_attention"
points = 4

@test_case(points=None, hidden=False)
def test_by_hand(attend):
    import torch
    q = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]])
    k = torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]]])
    v = torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]]])
    out = attend(q, k, v, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    assert tuple(out.shape) == (1, 1, 1, 4), f'the result must have the shape of q, (1, 1, 1, 4), not {tuple(out.shape)}'
    first = out[0, 0, 0, 0].item()
    assert abs(first - 0.8808) > 0.001, 'the scores are 2 and 0: you did not divide by the square root of the head size'
    assert abs(first - 0.6225) > 0.001, 'you divided by the head size, 4, instead of its square root, 2'
    assert abs(first - 0.7311) < 0.001, f'scores 2/2 and 0/2 give the first value weight 0.7311, not {first:.4f}'

@test_case(points=None, hidden=False)
def test_mask(attend):
    import torch
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 3, 5, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    out = attend(q, k, v, mask)
    assert tuple(out.shape) == (2, 2, 3, 5), f'the result must have the shape of q, (2, 2, 3, 5), not {tuple(out.shape)}'
    assert not out.isnan().any(), 'there are NaNs: fill with -inf before the softmax, and only where the mask is False'
    hidden = v.clone()
    hidden[:, :, 2] += 1000000.0
    assert torch.equal(attend(q, k, hidden, mask)[:, :, :2], out[:, :, :2]), 'a hidden value changes the result: put -inf where the mask is False, before the softmax'
    assert (out[:, :, 0] - v[:, :, 0]).abs().max() < 1e-09, 'the first query sees one key only, so its result is that value: its weights must sum to 1'

@test_case(points=None, hidden=False)
def test_shared_heads(attend):
    import torch
    torch.manual_seed(1)
    q = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    k, v = (torch.randn(2, 2, 7, 5, dtype=torch.float64) for _ in range(2))
    out = attend(q, k, v, torch.ones(3, 7, dtype=torch.bool))
    assert tuple(out.shape) == (2, 6, 3, 5), f'the result must have the shape of q, (2, 6, 3, 5), not {tuple(out.shape)}'
    for head in range(6):
        for kv, wrong in ((head % 2, True), (head // 3, False)):
            weights = torch.softmax(torch.einsum('btp,bsp->bts', q[:, head], k[:, kv]) / 5 ** 0.5, dim=-1)
            one = torch.einsum('bts,bsp->btp', weights, v[:, kv])
            close = (out[:, head] - one).abs().max() < 1e-09
            if wrong and head % 2 != head // 3:
                assert not close, f'query head {head} uses key-value head {kv}: neighbors share, so repeat_interleave, not repeat'
            if not wrong:
                assert close, f'query head {head} must be softmax(q k^T / sqrt(p)) v with key-value head {kv}, summed over keys'

