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
    out = rms_norm(x.clone(), weight.clone(), eps)
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

