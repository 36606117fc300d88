from otter.test_files import test_case

OK_FORMAT = False

name = "q3_rms_backward"
points = 4

@test_case(points=None, hidden=False)
def test_gradient(norm_backward):
    import torch
    from minillm.kernels import dispatch
    from minillm.kernels.tracing import BadAccess, trace

    def run(*args):
        try:
            with trace() as traffic:
                return (norm_backward(*args), traffic)
        except BadAccess as error:
            raise AssertionError(f'{error} Mask every load and the store with columns < d.') from None
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

