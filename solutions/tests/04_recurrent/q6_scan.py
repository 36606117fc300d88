from otter.test_files import test_case

OK_FORMAT = False

name = "q6_scan"
points = 4

@test_case(points=None, hidden=False)
def test_equals_the_loop(linear_scan):
    import torch
    for seed, t in enumerate([1, 2, 3, 4, 7, 8, 13, 64] * 2):
        torch.manual_seed(seed)
        leaf = [torch.randn(2, t, 3).double() for _ in range(2)]
        if seed >= 8:
            leaf[0][:, t // 2] = 0.0
        a, b = (part.clone().requires_grad_() * 1.0 for part in leaf)
        h, rows = (torch.zeros(2, 3).double(), [])
        for i in range(t):
            h = leaf[0][:, i] * h + leaf[1][:, i]
            rows.append(h)
        right, got = (torch.stack(rows, dim=1), linear_scan(a, b))
        assert tuple(got.shape) == (2, t, 3), f't = {t}: the result has the shape of b, not {tuple(got.shape)}'
        assert torch.equal(a, leaf[0]) and torch.equal(b, leaf[1]), f't = {t}: leave a and b as they are, work out of place'
        assert got.requires_grad, 'no gradient can flow back: stay inside torch, and do not detach'
        got = got.detach()
        assert torch.isfinite(got).all(), f't = {t}: not finite; a can be 0 or negative, so no logarithms and no division by products'
        gap = (got - right).abs().max().item()
        assert gap < 1e-09, f't = {t}: differs from the loop by {gap:.2g} (the first two tokens alone: {(got - right)[:, :2].abs().max().item():.2g}): does every pair reach back to token 1?'

@test_case(points=None, hidden=False)
def test_steps(linear_scan):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    calls = []

    class Count(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(str(function))
            return function(*args, **kwargs or {})
    counts, largest = ({}, {})
    for t in (64, 1024):
        torch.manual_seed(0)
        a, b = (torch.rand(1, t, 2), torch.randn(1, t, 2))
        calls.clear()
        with Count():
            out = linear_scan(a, b)
        counts[t] = len(calls)
        largest[t] = out.abs().max().item()
    assert counts[64] > 0, 'no operation of torch was seen: compute the result with torch'
    assert counts[1024] <= 3 * counts[64], f'{counts[64]} operations for 64 tokens and {counts[1024]} for 1024: they grow with the tokens; ten rounds are enough for 1024'

@test_case(points=None, hidden=True)
def test_gradients_and_memory(linear_scan):
    import torch
    torch.manual_seed(3)
    a, b = (torch.randn(2, 11, 3).double().requires_grad_(), torch.randn(2, 11, 3).double().requires_grad_())
    kept = (a.detach().clone(), b.detach().clone())
    h, rows = (torch.zeros(2, 3).double(), [])
    for i in range(11):
        h = a[:, i] * h + b[:, i]
        rows.append(h)
    theirs = torch.autograd.grad(torch.stack(rows, dim=1).sin().sum(), [a, b])
    out = linear_scan(a * 1.0, b * 1.0)
    assert out.requires_grad, 'no gradient can flow back: stay inside torch, and do not detach'
    ours = torch.autograd.grad(out.sin().sum(), [a, b], allow_unused=True)
    assert all((g is not None for g in ours)), 'a gradient must reach a and b: do not detach either'
    gap = max(((x - y).abs().max().item() for x, y in zip(ours, theirs)))
    assert gap < 1e-09, f"a gradient differs from the loop's by {gap:.2g}: work out of place, do not detach"
    assert torch.equal(a.detach(), kept[0]) and torch.equal(b.detach(), kept[1]), 'leave a and b as they are'
    from torch.utils._python_dispatch import TorchDispatchMode
    sizes = []

    class Watch(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **kwargs or {})
            sizes.extend((x.numel() for x in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(x, torch.Tensor)))
            return out
    with Watch():
        linear_scan(torch.rand(1, 512, 1), torch.rand(1, 512, 1))
    assert max(sizes) <= 4 * 512, f'a tensor of {max(sizes)} numbers for 512 tokens: a table of all pairs of tokens is no scan'

