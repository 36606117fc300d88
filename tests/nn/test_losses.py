import math

import pytest
import torch
import torch.nn.functional as F

from minillm.nn import TORCH_OPS, cross_entropy, z_loss

IMPLEMENTATIONS = pytest.mark.parametrize(
    "loss", [cross_entropy, TORCH_OPS.cross_entropy], ids=["reference", "torch"]
)


def case(*shape, v=11, ignored=True):
    torch.manual_seed(0)
    logits = (torch.randn(*shape, v, dtype=torch.float64) * 4).requires_grad_()
    targets = torch.randint(v, shape)
    if ignored:
        targets.view(-1)[::3] = -100
    return logits, targets


@IMPLEMENTATIONS
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5)], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torch_with_gradient(loss, shape, smoothing, reduction):
    logits, targets = case(*shape, ignored=shape != (1,))
    ours = loss(logits, targets, label_smoothing=smoothing, reduction=reduction)
    expected = F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), label_smoothing=smoothing, reduction=reduction
    )
    assert ours.shape == (shape if reduction == "none" else ())
    torch.testing.assert_close(ours.flatten(), expected.flatten(), atol=1e-12, rtol=0)
    (a,) = torch.autograd.grad(ours.square().sum(), logits, retain_graph=True)
    (b,) = torch.autograd.grad(expected.square().sum(), logits)
    torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


@IMPLEMENTATIONS
def test_another_ignore_index_and_int32_targets(loss):
    logits, targets = case(4, 6)
    targets = targets.masked_fill(targets == -100, 0).int()
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=0)
    torch.testing.assert_close(loss(logits, targets, ignore_index=0), expected)


@IMPLEMENTATIONS
def test_no_target_at_all(loss):
    logits, targets = case(5)
    nothing = torch.full_like(targets, -100)
    assert loss(logits, nothing).isnan()
    assert loss(logits, nothing, reduction="sum") == 0
    assert torch.equal(loss(logits, nothing, reduction="none"), torch.zeros(5).double())


@IMPLEMENTATIONS
def test_huge_logits_and_uniform_ones(loss):
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    assert loss(logits, torch.tensor([0])) == 0
    assert loss(logits, torch.tensor([1])) == 2e4
    assert loss(torch.zeros(2, 8), torch.tensor([1, 5])).item() == pytest.approx(math.log(8))


def wrong_mean_over_all(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum") / len(targets)


def wrong_smoothing_over_others(logits, targets, eps=0.1):
    """ε/(V - 1) on the other classes: a convention some papers use, not PyTorch's."""
    log_p = logits.log_softmax(-1)
    keep = targets != -100
    log_p, targets = log_p[keep], targets[keep]
    hit = log_p.gather(-1, targets[:, None])[:, 0]
    others = (log_p.sum(-1) - hit) / (logits.shape[-1] - 1)
    return -((1 - eps) * hit + eps * others).mean()


def wrong_smooths_ignored_too(logits, targets, eps=0.1):
    smooth = -logits.log_softmax(-1).mean()
    return (1 - eps) * F.cross_entropy(logits, targets) + eps * smooth


@pytest.mark.parametrize(
    ("wrong", "smoothing"),
    [(wrong_mean_over_all, 0.0), (wrong_smoothing_over_others, 0.1),
     (wrong_smooths_ignored_too, 0.1)],
)  # fmt: skip
def test_wrong_version_is_rejected(wrong, smoothing):
    logits, targets = case(7)
    expected = cross_entropy(logits, targets, label_smoothing=smoothing)
    assert (wrong(logits, targets) - expected).abs() > 1e-3


def test_z_loss_is_the_mean_square_of_log_z():
    logits, targets = case(3, 5)
    log_z = logits.exp().sum(-1).log()
    torch.testing.assert_close(z_loss(logits), (log_z**2).mean())
    keep = targets != -100
    torch.testing.assert_close(z_loss(logits, keep), (log_z[keep] ** 2).mean())
    assert z_loss(torch.tensor([[1e4, -1e4]])).item() == pytest.approx(1e8)


@IMPLEMENTATIONS
def test_errors_name_the_value(loss):
    logits, _ = case(3)
    with pytest.raises(ValueError, match=r"0 … 10 or equal ignore_index -100, got 2 … 11"):
        loss(logits, torch.tensor([2, -100, 11]))
    with pytest.raises(ValueError, match="got -5 … 3"):
        loss(logits, torch.tensor([2, -5, 3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, targets = case(3, 5)
    logits = logits.detach().to(dtype)
    loss = cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits.float(), targets))
