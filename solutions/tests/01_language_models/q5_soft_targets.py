from otter.test_files import test_case

OK_FORMAT = False

name = "q5_soft_targets"
points = 3

@test_case(points=None, hidden=False)
def test_loss_and_gradient(loss_and_gradient):
    import torch
    torch.manual_seed(0)
    z = torch.randn(3, 5, dtype=torch.float64)
    p = torch.rand(3, 5, dtype=torch.float64)
    p = p / p.sum(-1, keepdim=True)
    given = (z.clone(), p.clone())
    out = loss_and_gradient(z, p)
    assert torch.equal(z, given[0]), 'the logits you were given have changed: work on a copy'
    assert torch.equal(p, given[1]), 'the targets you were given have changed: work on a copy'
    assert isinstance(out, tuple) and len(out) == 2, 'return two things: the loss and the gradient'
    loss, gradient = out
    assert isinstance(loss, torch.Tensor) and loss.dim() == 0, 'the loss is one number, as a tensor without axes'
    assert tuple(gradient.shape) == (3, 5), 'the gradient has the shape of z'
    right = torch.nn.functional.cross_entropy(z, p)

    def is_(x):
        return abs(loss - x) < 1e-09
    assert not is_(-right), 'the loss is negative: log q is below 0, so a minus belongs before the sum'
    assert not is_(right * 3), 'take the mean over the rows, not the sum'
    assert not is_(right / 5), 'sum over the vocabulary, then the mean over the rows: you divided by v as well'
    assert not is_(right / torch.log(torch.tensor(2.0)).double()), 'nats: use the natural logarithm'
    entropy = -(p * p.log()).sum(-1).mean()
    assert not is_(right - entropy), 'that is the KL divergence: it lacks the entropy of the target'
    q = z.softmax(-1)
    assert not is_(-(q * p.log()).sum(-1).mean()), "p and q are exchanged: the logarithm is of the model's q"
    assert not 1e-09 < abs(loss - right) < 1e-05, 'the loss is right to a few digits only: stay in float64, and add nothing inside the logarithm'
    assert is_(right), f"the loss is {loss:.6f}, torch's is {right:.6f}"
    right = (q - p) / 3
    off = (gradient - right).abs().max()
    assert (gradient + right).abs().max() > 1e-09, 'the gradient has the wrong sign: a logit that is too high must go down'
    assert (gradient - 3 * right).abs().max() > 1e-09, 'the loss is a mean over the rows, so its gradient is divided by their number'
    assert (gradient + p / q / 3).abs().max() > 1e-09, 'that is the derivative with respect to q: go on through the softmax to z'
    assert (gradient - q / 3).abs().max() > 1e-09, 'the targets are missing in the gradient: it is 0 where q equals p'
    assert off < 1e-09, f'the gradient is off by {off:.2g}; for one row it is q - p'

@test_case(points=None, hidden=False)
def test_large_logits(loss_and_gradient):
    import torch
    z = torch.tensor([[1000.0, 0.0, 990.0], [-1000.0, -1001.0, -1002.0]], dtype=torch.float64)
    p = torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]], dtype=torch.float64)
    loss, gradient = loss_and_gradient(z, p)
    right = torch.nn.functional.cross_entropy(z, p)
    assert loss.isfinite() and gradient.isfinite().all(), 'logits of 1000 and -1000: not finite; take the logarithm of the softmax in one step, row by row'
    assert abs(loss / right - 1) < 1e-09, f"logits of 1000 and -1000: the loss is {loss:.2f}, torch's is {right:.2f}; a small number inside the logarithm bends it"

@test_case(points=None, hidden=False)
def test_floor(floor):
    import math
    assert isinstance(floor, (int, float)) and math.isfinite(floor), 'floor is one Python number (`.item()` makes one of a tensor)'
    assert floor != 0, '0 needs a certain target: this one is not certain'
    target = [0.85, 0.05, 0.05, 0.05]
    right = sum((-x * math.log(x) for x in target))
    assert abs(floor - right / math.log(2)) > 0.001, 'that is in bits: nats have the natural logarithm'
    assert abs(floor + right) > 0.001, 'an entropy is not negative'
    assert abs(floor + math.log(0.85)) > 0.001, 'that counts only the right token: the other three take part in the sum'
    assert abs(floor + 0.85 * math.log(0.85) + 0.05 * math.log(0.05)) > 0.001, 'three tokens have 0.05 each'
    assert abs(floor - right) < 0.001, 'the smallest cross-entropy is reached at q = p, and is the entropy of p'

@test_case(points=None, hidden=True)
def test_autograd_and_large_logits(loss_and_gradient, floor):
    import torch
    from torch.overrides import TorchFunctionMode
    called = set()

    class Watch(TorchFunctionMode):

        def __torch_function__(self, function, types, args=(), kwargs=None):
            called.add(getattr(function, '__name__', ''))
            return function(*args, **kwargs or {})
    torch.manual_seed(1)
    for b, v, size in [(1, 2, 1.0), (7, 3, 5.0), (4, 11, 1000.0)]:
        z = (size * torch.randn(b, v, dtype=torch.float64)).requires_grad_()
        p = torch.rand(b, v, dtype=torch.float64)
        p = p / p.sum(-1, keepdim=True)
        right = torch.nn.functional.cross_entropy(z, p)
        by_autograd, = torch.autograd.grad(right, z)
        try:
            with torch.no_grad(), Watch():
                loss, gradient = loss_and_gradient(z.detach(), p)
        except RuntimeError as error:
            assert 'grad' not in str(error), 'write the derivative as a formula, without autograd'
            raise
        assert loss.isfinite() and gradient.isfinite().all(), f'logits of size {size:.0f}: not finite; take the logarithm of the softmax in one step'
        assert abs(loss / right - 1) < 1e-09, f"logits of size {size:.0f}: loss {loss:.6f}, torch's {right:.6f}"
        assert (gradient - by_autograd).abs().max() < 1e-09, f'b = {b}, v = {v}, logits of size {size:.0f}: the gradient is not exact; write it as a formula'
    p = torch.tensor([[0.85, 0.05, 0.05, 0.05]], dtype=torch.float64)
    loss, gradient = loss_and_gradient(p.log(), p)
    assert gradient.abs().max() < 1e-09, 'at q = p the gradient is 0'
    assert abs(loss - floor) < 0.001, 'at q = p the loss is its floor'
    banned = called & {'cross_entropy', 'nll_loss', 'kl_div'}
    assert not banned, f'write it yourself: {banned} is what it is compared with'

