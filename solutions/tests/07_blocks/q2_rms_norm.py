from otter.test_files import test_case

OK_FORMAT = False

name = "q2_rms_norm"
points = 3

@test_case(points=None, hidden=False)
def test_against_torch(rms_norm):
    import torch
    torch.manual_seed(0)
    x = torch.randn(3, 7, 5, dtype=torch.float64) * 0.5 + 0.4
    weight, eps = (torch.randn(5, dtype=torch.float64), 0.02)
    given = x.clone()
    out = rms_norm(given, weight.clone(), eps)
    assert out is not None, 'rms_norm returned nothing: is the `return` missing?'
    assert torch.equal(given, x), 'your function changed its input: make a new tensor, and leave x as it is'
    assert tuple(out.shape) == (3, 7, 5), f'the shape changed to {tuple(out.shape)}: keep the averaged axis with keepdim=True'
    assert out.dtype == torch.float64, f'x is float64 and the result {out.dtype}: go back to the type of x'
    square = x.square()

    def is_(y):
        return (out - y).abs().max() < 1e-09
    root = (square.mean(-1, keepdim=True) + eps).sqrt()
    assert not is_(x / root), 'the weight is missing: each entry has a scale of its own'
    assert not is_(x / root * (1 + weight)), 'multiply by the weight itself, not by 1 + weight'
    assert not is_(torch.nn.functional.layer_norm(x, (5,), weight, eps=eps)), 'the mean was subtracted: that is LayerNorm'
    assert not is_(x / (square.sum(-1, keepdim=True) + eps).sqrt() * weight), 'you took the sum of the squares, not their mean'
    outside = x / (square.mean(-1, keepdim=True).sqrt() + eps) * weight
    assert not is_(outside), 'epsilon stands inside the root, added to the mean square'
    assert not is_(x / square.mean(-1, keepdim=True).sqrt() * weight), 'epsilon is missing under the root'
    assert not is_(x / (square.mean() + eps).sqrt() * weight), 'one mean over everything: each token has a size of its own'
    over_tokens = x / (square.mean(1, keepdim=True) + eps).sqrt() * weight
    assert not is_(over_tokens), 'the mean runs over the last axis, not over the tokens'
    assert not is_(x / (square.mean(-1, keepdim=True) + eps) * weight), 'the root is missing: divide by the root of the mean square'
    right = torch.nn.functional.rms_norm(x, (5,), weight, eps)
    gap = (out - right).abs().max().item()
    assert gap < 1e-09, f"differs from torch's rms_norm by {gap:.2g} on random input (in float64: no detour through float32)"

@test_case(points=None, hidden=False)
def test_any_shape(rms_norm):
    import torch
    torch.manual_seed(1)
    weight = torch.randn(6, dtype=torch.float64)
    for shape in ((6,), (4, 6), (2, 1, 3, 6)):
        x = torch.randn(*shape, dtype=torch.float64)
        try:
            out = rms_norm(x.clone(), weight, 0.01)
        except IndexError as error:
            raise AssertionError(f'x of shape {shape} fails: the last axis is dim=-1, however many there are') from error
        right = torch.nn.functional.rms_norm(x, (6,), weight, 0.01)
        assert out.shape == right.shape, f'x of shape {shape} came out as {tuple(out.shape)}'
        assert (out - right).abs().max() < 1e-09, f'wrong for x of shape {shape}: the mean runs over the last axis, dim=-1'

@test_case(points=None, hidden=False)
def test_float16(rms_norm):
    import torch
    x, weight = (torch.full((4,), 300.0, dtype=torch.float16), torch.ones(4, dtype=torch.float16))
    out = rms_norm(x, weight, 1e-06)
    gap = (out.float() - 1).abs().max().item()
    assert gap < 0.01, f'four times 300 gives {out.tolist()}: squares overflowed in float16, compute in float32'
    assert out.dtype == torch.float16, f'x is float16 and the result is {out.dtype}: go back to the type of x'

@test_case(points=None, hidden=True)
def test_half_precision(rms_norm):
    import torch
    x = torch.tensor([[300.0, -600.0, 5.0], [0.001, 0.002, 0.0]], dtype=torch.float16)
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float16)
    out = rms_norm(x, weight, 1e-06)
    right = torch.nn.functional.rms_norm(x.float(), (3,), weight.float(), 1e-06)
    gap = (out.float() - right).abs().max().item()
    assert gap < 0.004, f'off by {gap:.2g} in float16: compute everything in float32 and cast once, at the end'

