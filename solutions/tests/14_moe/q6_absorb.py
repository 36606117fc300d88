from otter.test_files import test_case

OK_FORMAT = False

name = "q6_absorb"
points = 3

@test_case(points=None, hidden=False)
def test_against_real_keys(latent_scores):
    import torch
    torch.manual_seed(0)
    for h, s, n, o, r in ((3, 11, 5, 4, 7), (2, 1, 4, 6, 3)):
        q, q_rope, c, k_rope, w_k = (torch.randn(*shape, dtype=torch.float64) for shape in ((h, n), (h, o), (s, r), (s, o), (h, n, r)))
        out = latent_scores(q.clone(), q_rope.clone(), c.clone(), k_rope.clone(), w_k.clone())
        assert out is not None, 'latent_scores returned nothing: is the `return` missing?'
        assert tuple(out.shape) == (h, s), f'one score for each head and cached token, ({h}, {s}), not {tuple(out.shape)}'
        plain, rotary = (torch.zeros(h, s).double(), torch.zeros(h, s).double())
        for i in range(h):
            for j in range(s):
                plain[i, j] = q[i] @ (w_k[i] @ c[j])
                rotary[i, j] = q_rope[i] @ k_rope[j]
        right = (plain + rotary) / (n + o) ** 0.5

        def is_(y):
            return (out - y).abs().max() < 1e-09
        assert not is_(plain / (n + o) ** 0.5), 'the rotary part is missing: its products are added'
        assert not is_(rotary / (n + o) ** 0.5), 'only the rotary part is there'
        assert not is_(plain + rotary), 'the scale is missing: divide by the root of the whole head, n + o'
        assert not is_((plain + rotary) / n ** 0.5), 'divide by the root of n + o, the width of the whole key, not of n alone'
        assert not is_((plain + rotary) / r ** 0.5), 'divide by the root of n + o, the width of a key, not of the latent'
        assert not is_((plain + rotary) / (r + o) ** 0.5), 'the dot products are of r + o numbers here, but the scale is that of the original key, n + o'
        assert not is_((plain + rotary) / (n + o)), 'divide by the root'
        assert not is_(plain / (n + o) ** 0.5 + rotary), 'the rotary part is scaled, too'
        assert not is_(plain / n ** 0.5 + rotary / o ** 0.5), 'one scale for the sum of both parts, 1 over the root of n + o'
        assert not is_(right.softmax(-1)), 'return the scores before the softmax'
        gap = (out - right).abs().max().item()
        assert gap < 1e-09, f'differs from query times key, head by head, by {gap:.2g}'

@test_case(points=None, hidden=False)
def test_no_keys_are_made(latent_scores):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode
    h, s, n, o, r = (4, 400, 16, 8, 32)
    torch.manual_seed(1)
    given = [torch.randn(*shape) for shape in ((h, n), (h, o), (s, r), (s, o), (h, n, r))]
    largest, work = ([0], [0])
    uncounted = ('mv', 'addmv', 'addmv_', 'dot', 'vdot')

    class Watch(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **kwargs or {})
            if function.overloadpacket.__name__ in uncounted:
                work[0] += max((x.numel() for x in args if isinstance(x, torch.Tensor)))
            for x in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(x, torch.Tensor):
                    largest[0] = max(largest[0], x.numel())
                    work[0] += 0 if getattr(function, 'is_view', False) else x.numel()
            return out
    with FlopCounterMode(display=False) as counter:
        out = latent_scores(*[x.clone() for x in given])
    q, q_rope, c, k_rope, w_k = given
    k = torch.cat([torch.einsum('sr,hnr->hsn', c, w_k), k_rope.expand(h, s, o)], dim=-1)
    right = (k @ torch.cat([q, q_rope], dim=-1)[..., None])[..., 0] / (n + o) ** 0.5
    same = out is not None and out.shape == right.shape and ((out - right).abs().max() < 0.001)
    assert same, 'the scores are wrong: repair what the check above says first'
    with Watch():
        latent_scores(*given)
    flops, keys = (counter.get_total_flops(), 2 * s * h * n * r)
    assert flops < keys / 2, f'{flops} multiplications and additions: making the keys alone takes {keys}; move the query instead, once'
    limit = max(s * (r + o), s * h * 2, h * n * r)
    assert largest[0] <= limit, f'a tensor of {largest[0]} numbers was made; {s} cached tokens for {h} heads with {n} numbers each are keys'
    assert work[0] < s * h * n * r / 4, f'{work[0]} numbers were multiplied or made in small pieces: as much work as making the keys; move the query instead, once for each head'

