from otter.test_files import test_case

OK_FORMAT = False

name = "q2_smoothed_loss"
points = 3

@test_case(points=None, hidden=False)
def test_without_smoothing(smoothed_loss):
    import torch
    torch.manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float64)
    targets = torch.tensor([3, 0, 6, 2, 2])
    loss = smoothed_loss(logits, targets, 0.0)
    assert tuple(torch.as_tensor(loss).shape) == (), 'return one number, the mean'
    right = torch.nn.functional.cross_entropy(logits, targets).item()
    assert abs(float(loss) + right) > 1e-09, 'the sign is turned round: a loss is -log p'
    assert abs(float(loss) / right - 5) > 1e-09, 'that is the sum over the rows: take their mean'
    assert abs(float(loss) - right) < 1e-09, 'with epsilon = 0 it must be plain cross-entropy: log_softmax over the last axis, then pick'

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
    assert abs(loss - right) < 1e-09, f"torch's label smoothing gives {right:.4f}, yours {loss:.4f}"

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
    assert abs(loss - right / 2) > 1e-09, 'the sum of two rows was divided by four: padding must not count below the line'
    assert abs(loss - right) < 1e-09, 'rows with target -100 must not count: neither their losses nor their number'

@test_case(points=None, hidden=True)
def test_gradient_is_p_minus_q(smoothed_loss):
    import torch
    torch.manual_seed(3)
    logits = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([8, -100, 0, 4, -100])
    gradient, = torch.autograd.grad(smoothed_loss(logits, targets, 0.1), logits)
    right, = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1), logits)
    assert (gradient - right).abs().max() < 1e-12, "the gradient differs from torch's: let it flow through the whole log_softmax"

