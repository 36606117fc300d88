from otter.test_files import test_case

OK_FORMAT = False

name = "q3_rms_backward"
points = 4

@test_case(points=None, hidden=False)
def test_gradient(norm_backward):
    import torch
    from minillm.kernels import dispatch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(norm_backward(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Mask every load and the store with columns < d.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    assert dispatch.INTERPRETED, 'Triton is missing, or was imported before TRITON_INTERPRET was set: restart, then run the cells from the top'
    torch.manual_seed(0)
    x, w, dy, eps = (torch.randn(4, 11) + 0.3, torch.randn(11), torch.randn(4, 11), 0.05)
    exact = x.double().requires_grad_()
    torch.nn.functional.rms_norm(exact, (11,), w.double(), eps).backward(dy.double())
    out, traffic = run(x, w, dy, eps)
    assert out is not None and out.shape == x.shape, 'norm_backward must return a tensor of the shape of x'
    assert traffic.stored >= 4 * 11 * 4, 'the kernel stored less than the answer: it has to write every number itself'
    x, w, dy = (x.double(), w.double(), dy.double())

    def is_(r, g, mean_over=11):
        normal = x * r
        dx = r * (g - normal * (normal * g).sum(-1, keepdim=True) / mean_over)
        return (out - dx).abs().max() < 1e-05
    r = 1 / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    assert not is_(r, dy), 'the weight is missing: g is w times dy'
    assert not is_(r, w * dy, 16) and (not is_(1 / (x.square().sum(-1, keepdim=True) / 16 + eps).sqrt(), w * dy)), 'the means run over d numbers, not over BLOCK: zeros outside add nothing, but are not to be counted'
    assert not is_(1 / (x.square().sum(-1, keepdim=True) / 16 + eps).sqrt(), w * dy, 16), 'both means run over d numbers, not over BLOCK'
    assert not is_(r, w * dy, 1), 'that is the sum of x̂ g; its mean is asked for'
    assert not is_(1 / x.square().mean(-1, keepdim=True).sqrt(), w * dy), 'epsilon is missing under the root'
    assert (out - r * w * dy).abs().max() > 1e-05, 'r depends on x, too: the second term, x̂ times a mean, is missing'
    plus = r * (w * dy + x * r * (x * r * w * dy).mean(-1, keepdim=True))
    assert (out - plus).abs().max() > 1e-05, 'the second term is subtracted'
    gap = (out - exact.grad).abs().max().item()
    assert not 1e-06 * 5 < gap < 0.002, f'nearly right, off by {gap:.1g}: something is computed in half precision'
    assert gap < 5e-06, f'differs from autograd in float64 by {gap:.2g}'

@test_case(points=None, hidden=False)
def test_sizes(norm_backward):
    import torch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(norm_backward(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Mask every load and the store with columns < d.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    torch.manual_seed(1)
    for n, d, dtype in ((3, 1, torch.float32), (2, 64, torch.float32), (5, 129, torch.float32), (3, 300, torch.float16)):
        x, w, dy = (torch.randn(*shape).to(dtype) for shape in ((n, d), (d,), (n, d)))
        exact = x.double().requires_grad_()
        torch.nn.functional.rms_norm(exact, (d,), w.double(), 0.001).backward(dy.double())
        out, traffic = run(x, w, dy, 0.001)
        gap = (out - exact.grad).abs().max().item()
        bound = 1e-05 if dtype == torch.float32 else 0.004
        assert gap < bound, f'off by {gap:.2g} for {n} rows of {d} in {dtype}: compute in float32, over d numbers'
    x, w, dy = ((400 * torch.randn(3, 64)).half(), torch.randn(64).half(), 100 * torch.randn(3, 64).half())
    exact = x.double().requires_grad_()
    torch.nn.functional.rms_norm(exact, (64,), w.double(), 0.001).backward(dy.double())
    out, traffic = run(x, w, dy, 0.001)
    assert out.dtype == torch.float16, 'dx has the type of x'
    gap = ((out - exact.grad).abs().max() / exact.grad.abs().max()).nan_to_num(1.0).item()
    assert gap < 0.002, f'float16 numbers of size 400: off by {gap:.0%}, because their squares overflow; widen what is loaded'

