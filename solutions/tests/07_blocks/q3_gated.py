from otter.test_files import test_case

OK_FORMAT = False

name = "q3_gated"
points = 3

@test_case(points=None, hidden=False)
def test_gate(gated):
    import torch
    from torch.nn import functional as F
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    gate, up = torch.randn(2, 7, 5, dtype=torch.float64)
    down = torch.randn(5, 7, dtype=torch.float64)
    given = [y.clone() for y in (x, gate, up, down)]
    out = gated(*given)
    assert out is not None, 'gated returned nothing: is the `return` missing?'
    assert all(map(torch.equal, given, (x, gate, up, down))), 'your function changed its input: leave it as it is'
    assert tuple(out.shape) == (2, 3, 5), f'the result must have the shape of x, not {tuple(out.shape)}'
    a, b = (x @ gate.T, x @ up.T)

    def is_(hidden):
        return (out - hidden @ down.T).abs().max() < 1e-09
    assert not is_(a * F.silu(b)), 'SiLU acts on the projection by `gate`, not on the one by `up`'
    assert not is_(a.sigmoid() * b), 'that is the sigmoid alone; SiLU of a is a times sigmoid of a'
    assert not is_(F.gelu(a) * b), 'that is GELU (GeGLU); SwiGLU takes SiLU, a times sigmoid of a'
    assert not is_(F.relu(a) * b), 'that is ReLU; SwiGLU takes SiLU, a times sigmoid of a'
    assert not is_(F.silu(a) + b), 'the two projections are multiplied, not added'
    assert not is_(F.silu(a)), 'the projection by `up` is missing'
    assert not is_(a * b), 'the activation is missing'
    assert not is_(F.silu(a * b)), 'SiLU acts on the gate alone, before the product'
    assert not is_(F.silu(a) * F.silu(b)), 'SiLU acts on the gate alone; the other projection stays linear'
    gap = (out - F.linear(F.silu(a) * b, down)).abs().max().item()
    assert gap < 1e-09, f'differs from silu(x gate^T) * (x up^T), then down, by {gap:.2g}'

@test_case(points=None, hidden=True)
def test_other_shapes(gated):
    import torch
    from torch.nn import functional as F
    torch.manual_seed(1)
    for shape, f in (((6,), 3), ((4, 6), 6), ((2, 1, 3, 6), 11)):
        x, gate, up = (torch.randn(*shape), torch.randn(f, 6), torch.randn(f, 6))
        down = torch.randn(6, f)
        right = F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
        out = gated(x, gate, up, down)
        assert out.shape == right.shape, f'for x of shape {shape} and f = {f} the result is {tuple(out.shape)}'
        assert (out - right).abs().max() < 0.0001, f'wrong for x of shape {shape} and f = {f}'

