from otter.test_files import test_case

OK_FORMAT = False

name = "q3_grouped_attention"
points = 4

@test_case(points=None, hidden=False)
def test_scale(attend):
    import torch
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 2, n, 4, dtype=torch.float64) for n in (3, 6, 6))
    given = (q.clone(), k.clone(), v.clone())
    out = attend(q, k, v, torch.ones(3, 6, dtype=torch.bool))
    assert all(map(torch.equal, given, (q, k, v))), 'you changed q, k or v in place: the caller still needs them; compute a new tensor'
    assert tuple(out.shape) == (1, 2, 3, 4), f'the result must have the shape of q, (1, 2, 3, 4), not {tuple(out.shape)}'
    assert not out.isnan().any(), "every key may be seen, and the result is NaN: is True taken for 'hide'? It means 'may look'"

    def differs(divisor, dim=-1):
        weights = torch.softmax(q @ k.mT / divisor, dim=dim)
        return (out - weights @ v).abs().max() > 1e-09
    assert differs(1000000000000000.0), "every key may be seen, and all of them count alike: is True taken for 'hide'? It means 'may look'"
    assert differs(2, dim=-2), 'the softmax must run over the keys, the last axis, not over the queries'
    assert differs(1), 'you did not divide by the square root of the head size'
    assert differs(4), 'you divided by the head size instead of its square root'
    assert differs(3 ** 0.5), 'you divided by the root of the number of queries, t, instead of the size of a head, p'
    assert differs(6 ** 0.5), 'you divided by the root of the number of keys, s, instead of the size of a head, p'
    assert differs(8 ** 0.5), 'you divided by the root of heads times head size, instead of the size of one head, p'
    assert not differs(2), 'with everything visible: softmax(q k^T / sqrt(p)) over the keys, times v'

@test_case(points=None, hidden=False)
def test_by_hand(attend):
    import torch
    q = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]])
    k = torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]]])
    v = torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]]])
    out = attend(q, k, v, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    assert tuple(out.shape) == (1, 1, 1, 4), f'the result must have the shape of q, (1, 1, 1, 4), not {tuple(out.shape)}'
    first = out[0, 0, 0, 0].item()
    assert abs(first - 0.7311) < 0.001, f'scores 2/2 and 0/2 give the first value weight 0.7311, not {first:.4f}'

@test_case(points=None, hidden=False)
def test_mask(attend):
    import torch
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 3, 5, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    out = attend(q, k, v, mask)
    assert tuple(out.shape) == (2, 2, 3, 5), f'the result must have the shape of q, (2, 2, 3, 5), not {tuple(out.shape)}'
    assert not out[:, :, 2].isnan().all(), "the last query may see every key and gets NaN: is True taken for 'hide'? It means 'may look'"
    assert not out.isnan().any(), 'there are NaNs: fill with -inf before the softmax, and only where the mask is False'
    seen = [not torch.equal(attend(q, k, v + 1000000.0 * (torch.arange(3) == j)[:, None], mask)[:, :, 0], out[:, :, 0]) for j in range(3)]
    assert seen != [False, True, True], 'inverted: where the mask is True the query may look'
    hidden = v.clone()
    hidden[:, :, 2] += 1000000.0
    assert torch.equal(attend(q, k, hidden, mask)[:, :, :2], out[:, :, :2]), 'a hidden value changes the result: put -inf where the mask is False, before the softmax'
    assert (out[:, :, 0] - v[:, :, 0]).abs().max() < 1e-09, 'the first query sees one key only, so its result is that value: its weights must sum to 1'

@test_case(points=None, hidden=False)
def test_large_scores(attend):
    import torch
    q = torch.full((1, 1, 1, 1), 100000.0, dtype=torch.float64)
    k = torch.tensor([-1.0, -2.0, 3.0], dtype=torch.float64).view(1, 1, 3, 1)
    v = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64).view(1, 1, 3, 1)
    out = attend(q, k, v, torch.tensor([[True, True, True]])).item()
    assert abs(out - 30) < 1e-09, f'scores of -1e5, -2e5 and 3e5 must give the third value, 30, not {out}: exp() alone overflows, softmax does not'
    out = attend(q, k, v, torch.tensor([[True, True, False]])).item()
    assert abs(out - 30) > 1e-09, 'the visible scores are -1e5 and -2e5, and the hidden key wins: hide it with -math.inf, not with a number such as -100'
    assert abs(out - 10) < 1e-09, f'of two visible scores, -1e5 and -2e5, the first takes all the weight: 10, not {out}'

@test_case(points=None, hidden=False)
def test_shared_heads(attend):
    import sys
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    names, callers = ([], [])

    class Watch(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            frame = sys._getframe()
            while frame is not None:
                callers.append(str(frame.f_globals.get('__name__')))
                frame = frame.f_back
            names.append(str(function))
            return function(*args, **kwargs or {})
    torch.manual_seed(1)
    q = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    k, v = (torch.randn(2, 2, 7, 5, dtype=torch.float64) for _ in range(2))
    everything = torch.ones(3, 7, dtype=torch.bool)
    try:
        attend(q, k, k, everything)
    except RuntimeError as error:
        assert 'size of tensor' not in str(error) and 'must match' not in str(error), f'6 query heads meet 2 key-value heads and the sizes do not fit: give every query head its key head and its value head, both of them, before the products (torch says: {error})'
        raise
    called = torch.nn.functional.scaled_dot_product_attention
    used = []
    torch.nn.functional.scaled_dot_product_attention = lambda *args, **options: used.append(1) or called(*args, **options)
    try:
        with Watch():
            out = attend(q, k, v, everything)
    finally:
        torch.nn.functional.scaled_dot_product_attention = called
    assert not used and (not any(('scaled_dot_product' in name for name in names))), 'write it yourself: do not call scaled_dot_product_attention'
    assert not any((name.startswith('minillm.nn') for name in callers)), "write it yourself: do not call minillm's attention"
    assert tuple(out.shape) == (2, 6, 3, 5), f'the result must have the shape of q, (2, 6, 3, 5), not {tuple(out.shape)}'

    def one(head, kv):
        weights = torch.softmax(torch.einsum('btp,bsp->bts', q[:, head], k[:, kv]) / 5 ** 0.5, dim=-1)
        return torch.einsum('bts,bsp->btp', weights, v[:, kv])
    for head in range(6):
        if head % 2 != head // 3:
            assert (out[:, head] - one(head, head % 2)).abs().max() > 1e-09, f'query head {head} uses key-value head {head % 2}, and should use {head // 3}: neighbors share'
        assert (out[:, head] - one(head, head // 3)).abs().max() < 1e-09, f'query head {head} must be softmax(q k^T / sqrt(p)) v with key-value head {head // 3}, summed over keys'

@test_case(points=None, hidden=True)
def test_oracle(attend):
    import torch
    torch.manual_seed(2)
    q = torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(3, 3, 7, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    wide = [x.repeat_interleave(2, dim=1) for x in (k, v)]
    for heads, kind in ((6, 'head'), (1, 'sentence')):
        mask = torch.rand(3, heads, 4, 7) < 0.6
        mask[..., 0] = True
        right = torch.nn.functional.scaled_dot_product_attention(q, *wide, attn_mask=mask)
        out = attend(q, k, v, mask)
        assert out.shape == right.shape, f'the result must have shape {tuple(right.shape)}'
        gap = (out - right).abs().max().item()
        assert gap < 1e-09, f"with a mask for each {kind} it differs from torch's attention by {gap:.2g}: scale, mask, shared heads?"
    ours = torch.autograd.grad(out.sin().sum(), (q, k, v))
    theirs = torch.autograd.grad(right.sin().sum(), (q, k, v))
    gap = max(((a - b).abs().max().item() for a, b in zip(ours, theirs)))
    assert gap < 1e-09, f"the gradients differ from torch's by {gap:.2g}: do not detach anything"

