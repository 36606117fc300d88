import pytest
import torch

from minillm.kernels import linear_cross_entropy as module
from minillm.kernels.cross_entropy import cross_entropy_reference
from minillm.kernels.linear_cross_entropy import linear_cross_entropy

OPTIONS = [{}, {"label_smoothing": 0.1, "z_loss": 0.05, "softcap": 4.0}]


def targets(n, v, device):
    t = torch.randint(v, (n,), generator=torch.Generator().manual_seed(3)).to(device)
    t[::5] = -100
    return t


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "all options"])
@pytest.mark.parametrize("slice_rows", [1, 4, 64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_value_and_gradients(agree, data, device, options, slice_rows, reduction):
    t = targets(9, 37, device)

    def reference(x, weight):
        loss = cross_entropy_reference(x @ weight.T, t, **options).sum()
        return loss / (t != -100).sum() if reduction == "mean" else loss

    def kernel(x, weight):
        return linear_cross_entropy(
            x, weight, t, slice_rows=slice_rows, reduction=reduction, **options
        )

    agree(kernel, reference, data(9, 12), data(37, 12, scale=0.3))


def test_no_more_rows_of_logits_than_asked_for(data, device, monkeypatch):
    seen = []
    original = module.rows.losses_of_rows
    monkeypatch.setattr(
        module.rows,
        "losses_of_rows",
        lambda logits, *rest: seen.append(tuple(logits.shape)) or original(logits, *rest),
    )
    linear_cross_entropy(data(9, 12), data(37, 12), targets(9, 37, device), slice_rows=4)
    assert seen == [(4, 37), (4, 37), (1, 37)]


def test_frozen_weights_and_evaluation(data, device, check):
    x, weight, t = data(9, 12), data(37, 12, scale=0.3, grad=False), targets(9, 37, device)
    linear_cross_entropy(x, weight, t).backward()
    assert x.grad is not None and weight.grad is None
    with torch.no_grad():
        loss = linear_cross_entropy(x, weight, t)
    exact = cross_entropy_reference(x.double() @ weight.double().T, t).sum() / (t != -100).sum()
    check(loss, exact)


def test_mistakes_are_named(data, device):
    x, weight, t = data(9, 12), data(37, 12), targets(9, 37, device)
    with pytest.raises(ValueError, match="slice_rows is 0"):
        linear_cross_entropy(x, weight, t, slice_rows=0)
    with pytest.raises(ValueError, match="choose mean or sum"):
        linear_cross_entropy(x, weight, t, reduction="none")
    if device == "cpu":
        with pytest.raises(ValueError, match="targets must lie in"):
            linear_cross_entropy(x, weight, t + 40)
