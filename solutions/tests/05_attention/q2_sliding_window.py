from otter.test_files import test_case

OK_FORMAT = False

name = "q2_sliding_window"
points = 4

@test_case(points=None, hidden=False)
def test_mask(window_mask):
    import torch
    mask = window_mask(3, 3, 3)
    assert isinstance(mask, torch.Tensor) and mask.shape == (3, 3), 'return a tensor of shape (t, s)'
    assert mask.dtype == torch.bool, 'the mask must be boolean; call .bool() or compare positions'
    right = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    assert not mask.all(), 'everything is visible: a token must not look at later ones'
    assert not torch.equal(mask, ~right), 'inverted: True must mean that the query may look at the key'
    assert not torch.equal(mask, right.T), 'row = query, column = key: the last token may look at the first one'
    assert mask.diagonal().all(), 'a token must be able to look at itself, too'
    assert torch.equal(mask, right), 'three tokens, three keys, a window of 3: expected the lower triangle with its diagonal'
    mask = window_mask(2, 5, 3)
    assert tuple(mask.shape) == (2, 5), 'return a tensor of shape (t, s)'
    assert mask.tolist() != [[True] + [False] * 4, [True] * 2 + [False] * 3], 'the new tokens are the last ones of the sequence, and this mask treats them as the first'
    assert mask.tolist() != [[True] * 4 + [False], [True] * 5], 'this is the causal mask: a window hides old tokens as well'
    assert mask[0].sum() != 4, 'one too many: a window of 3 is the token itself and two before it'
    assert mask[0].sum() != 2, 'one too few: a window of 3 is the token itself and two before it'
    assert mask.tolist() == [[False, True, True, True, False], [False, False, True, True, True]], 'which token of the whole sequence is query i? It sees itself and the window - 1 tokens before it'

@test_case(points=None, hidden=False)
def test_windowed(windowed):
    import torch
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 12, 5, dtype=torch.float64)
    given = (q.clone(), k.clone(), v.clone())
    out = windowed(q, k, v, 4)
    assert all(map(torch.equal, given, (q, k, v))), 'you changed q, k or v in place: the caller still needs them; compute a new tensor'
    assert tuple(out.shape) == (2, 2, 12, 5), f'the result must have the shape of q, (2, 2, 12, 5), not {tuple(out.shape)}'
    assert not out.isnan().any(), 'NaN: is there a query that may see no key? Each sees itself'
    back = torch.arange(12)[:, None] - torch.arange(12)[None]

    def attend(mask, scale=None):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)

    def is_(y):
        return (out - y).abs().max() < 1e-09
    window = (back >= 0) & (back < 4)
    assert not is_(attend(back >= 0)), 'that is causal attention: keys before the window must be hidden, too'
    assert not is_(attend((back >= 0) & (back < 5))), 'one key too many: a window of 4 is the token and three before it'
    assert not is_(attend((back >= 0) & (back < 3))), 'one key too few: a window of 4 is the token and three before it'
    block = torch.arange(12) // 4
    own = (back >= 0) & (block[:, None] == block[None])
    assert not is_(attend(own)), 'each piece sees only itself: the window reaches back into the piece before'
    assert not is_(attend(back.abs() < 4)), 'it looks ahead: hide the later tokens inside a piece'
    assert not is_(attend(window, scale=1.0)), 'you did not divide by the square root of the head size'
    wide = (back >= 0) & (block[:, None] - block[None] <= 1)
    assert not is_(attend(wide)), 'all keys of the last piece are seen: inside the pieces the window must still be masked'
    gap = (out - attend(window)).abs().max().item()
    assert gap < 1e-09, f"differs by {gap:.2g} from torch's attention under a mask with 0 <= i - j < window"

@test_case(points=None, hidden=False)
def test_work(windowed):
    import sys
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode
    names, callers, sizes = ([], [], [])

    class Watch(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out, frame = (function(*args, **kwargs or {}), sys._getframe())
            while frame is not None:
                callers.append(str(frame.f_globals.get('__name__')))
                frame = frame.f_back
            names.append(str(function))
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out
    q, k, v = torch.randn(3, 1, 2, 96, 4)
    with Watch():
        windowed(q, k, v, 8)
    assert not any(('scaled_dot_product' in name for name in names)), 'write it yourself: do not call scaled_dot_product_attention'
    assert not any((name.startswith('minillm.nn') for name in callers)), "write it yourself: do not call minillm's attention"
    assert max(sizes, default=0) < 2 * 96 * 96, 'you make a tensor as large as the table of all scores, 96 x 96 for each head: cut queries and keys before the product'
    with FlopCounterMode(display=False) as counter:
        out = windowed(q, k, v, 8)
    assert out is not None and out.shape == q.shape, 'the result must have the shape of q'
    scores = counter.get_total_flops() / (2 * 4 * 4) / 96
    assert scores < 90, f'{scores:.0f} scores for each of 96 queries: everything was computed, and then hidden'
    assert scores <= 16, f'{scores:.0f} scores for each query; a window of 8 needs at most 16 when you cut the keys, too'

@test_case(points=None, hidden=True)
def test_odd_sizes_and_gradients(window_mask, windowed):
    import torch
    for t, s, window in [(1, 1, 1), (1, 7, 3), (4, 4, 2), (3, 7, 5), (6, 7, 99)]:
        mask = window_mask(t, s, window)
        assert tuple(mask.shape) == (t, s), f'for t={t}, s={s} the shape must be ({t}, {s})'
        for i in range(t):
            for j in range(s):
                right = 0 <= s - t + i - j < window
                assert bool(mask[i, j]) == right, f'wrong at query {i}, key {j} for t={t}, s={s}, window={window}'
    torch.manual_seed(1)
    for t, window in [(1, 4), (7, 1), (10, 3), (13, 5), (6, 50)]:
        q, k, v = (torch.randn(2, 3, t, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
        back = torch.arange(t)[:, None] - torch.arange(t)[None]
        mask = (back >= 0) & (back < window)
        right = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        out = windowed(q, k, v, window)
        assert out.shape == right.shape, f'with {t} tokens and a window of {window} tokens are lost: the last piece may be short'
        assert (out - right).abs().max() < 1e-09, f'wrong with {t} tokens and a window of {window}'
        probe = torch.randn_like(right)
        for a, b in zip(torch.autograd.grad((out * probe).sum(), (q, k, v)), torch.autograd.grad((right * probe).sum(), (q, k, v))):
            assert (a - b).abs().max() < 1e-09, f'the gradient is wrong with {t} tokens and a window of {window}'

