from otter.test_files import test_case

OK_FORMAT = False

name = "q2_smoothed_loss"
points = 3

@test_case(points=None, hidden=False)
def test_without_smoothing(smoothed_loss):
    import math
    import torch
    torch.manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float64)
    targets = torch.tensor([3, 0, 6, 2, 2])
    loss = smoothed_loss(logits, targets, 0.0)
    assert isinstance(loss, torch.Tensor), 'return a tensor, so that gradients can flow: no .item(), no float()'
    assert tuple(loss.shape) == (), 'return one number, the mean'
    assert loss.dtype == logits.dtype, f'logits are {logits.dtype}, the loss is {loss.dtype}: keep the precision'
    assert loss.isfinite(), f'the loss is {float(loss)} where epsilon is 0: is there a log of q, 0 log 0? The loss needs log p alone'
    right = torch.nn.functional.cross_entropy(logits, targets).item()
    assert abs(float(loss) + right) > 1e-09, 'the sign is turned round: a loss is -log p'
    assert abs(float(loss) / right - 5) > 1e-09, 'that is the sum over the rows: take their mean'
    nonzero = targets != 0
    assert abs(float(loss) - torch.nn.functional.cross_entropy(logits[nonzero], targets[nonzero]).item()) > 1e-09, 'token 0 is a token like any other here: only -100 is left out'
    assert abs(float(loss) - right / math.log(2)) > 1e-09, 'that is in bits: take natural logarithms'
    over_rows = -logits.log_softmax(0).gather(1, targets[:, None]).mean().item()
    assert abs(float(loss) - over_rows) > 1e-09, 'the softmax runs over the rows: take the last axis, the tokens'
    assert abs(float(loss) - right) < 1e-06, f'with epsilon = 0 it must be plain cross-entropy, {right:.6f}, not {float(loss):.6f}: does epsilon have an effect where it must have none?'
    assert (targets == torch.tensor([3, 0, 6, 2, 2])).all(), 'your function wrote into `targets`: work on a copy'

@test_case(points=None, hidden=False)
def test_smoothed(smoothed_loss):
    import torch
    torch.manual_seed(1)
    logits = 3 * torch.randn(6, 5, dtype=torch.float64)
    targets = torch.tensor([3, 0, 4, 2, 2, 1])
    loss = float(smoothed_loss(logits, targets, 0.2))
    log_p = logits.log_softmax(-1)
    picked = log_p.gather(1, targets[:, None])[:, 0]
    others = (log_p.sum(-1) - picked) / 4
    plain = float(-picked.mean())
    assert abs(loss - float(-(0.8 * picked + 0.2 * others).mean())) > 1e-09, 'you spread epsilon over the *other* tokens only; here the target gets its share too: epsilon / v for all v'
    assert abs(loss - float(-(picked + 0.2 * log_p.mean(-1)).mean())) > 1e-09, 'the right token keeps 1 - epsilon: q must sum to 1'
    assert abs(loss - float(-(0.8 * picked + 0.2 * log_p.sum(-1)).mean())) > 1e-09, 'epsilon is shared out: each token gets epsilon / v'
    assert abs(loss - plain) > 1e-09, 'nothing is smoothed: epsilon has no effect'
    right = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2).item()
    q = torch.full((6, 5), 0.2 / 5, dtype=torch.float64).scatter_add(1, targets[:, None], torch.full((6, 1), 0.8, dtype=torch.float64))
    assert abs(loss - right - float((q * q.log()).sum(-1).mean())) > 1e-09, 'that is the Kullback-Leibler divergence: the entropy of q is not taken off, the loss is -sum q log p'
    assert abs(loss - float(-(0.8 * picked + 0.2 * (log_p.sum(-1) - picked) / 5).mean())) > 1e-09, 'the target gets its epsilon / v, too: it has 1 - epsilon + epsilon / v in all'
    assert abs(loss - float(-(0.2 * picked + 0.8 * log_p.mean(-1)).mean())) > 1e-09, 'the other way round: epsilon is the part that is spread'
    assert abs(loss - right) < 1e-06, f"torch's label smoothing gives {right:.7f}, yours {loss:.7f}"

@test_case(points=None, hidden=False)
def test_padding(smoothed_loss):
    import torch
    torch.manual_seed(2)
    logits = torch.randn(4, 6, dtype=torch.float64)
    targets = torch.tensor([3, -100, 5, -100])
    try:
        loss = float(smoothed_loss(logits, targets, 0.1))
    except NotImplementedError:
        raise
    except (RuntimeError, IndexError) as error:
        raise AssertionError(f'a target of -100 is no token to pick: drop those rows first (torch says: {error})') from None
    right = torch.nn.functional.cross_entropy(logits[[0, 2]], targets[[0, 2]], label_smoothing=0.1).item()
    assert targets.tolist() == [3, -100, 5, -100], 'your function wrote into `targets`: work on a copy'
    assert abs(loss - right / 2) > 1e-09, 'the sum of two rows was divided by four: padding must not count below the line'
    assert abs(loss - right) < 1e-06, 'rows with target -100 must not count: neither their losses nor their number'

@test_case(points=None, hidden=False)
def test_large_logits_and_own_work(smoothed_loss):
    import torch
    from torch.overrides import TorchFunctionMode
    logits, targets = (torch.tensor([[0.0, 2000.0, -300.0]], dtype=torch.float64), torch.tensor([0]))
    loss = float(smoothed_loss(logits, targets, 0.1))
    right = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1).item()
    assert abs(loss - right) < 0.001, f'logits 0, 2000, -300: the loss is {right:.1f}, not {loss}: log(softmax) rounds to log(0), `log_softmax` does not'

    class Watch(TorchFunctionMode):

        def __torch_function__(self, function, types, args=(), kwargs=None):
            assert 'cross_entropy' not in getattr(function, '__name__', ''), "this is torch's own cross-entropy: write yours from log_softmax"
            return function(*args, **kwargs or {})
    with Watch():
        smoothed_loss(torch.randn(4, 3), torch.tensor([2, 0, -100, 1]), 0.1)

