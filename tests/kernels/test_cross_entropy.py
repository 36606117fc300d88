import pytest
import torch

from minillm.kernels.cross_entropy import (
    cross_entropy,
    cross_entropy_reference,
    selective_logprob,
)
from minillm.nn import cross_entropy as plain

OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 0.01},
    {"softcap": 3.0},
    {"label_smoothing": 0.2, "z_loss": 0.05, "softcap": 2.0},
]


def targets(n, v, device):
    t = torch.randint(v, (n,), generator=torch.Generator().manual_seed(3)).to(device)
    t[::4] = -100
    return t


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("n", "v", "block"), [(5, 7, 64), (4, 123, 32), (1, 1, 64)])
def test_value_and_gradient(agree, data, device, options, n, v, block):
    t = targets(n, v, device)
    agree(
        lambda x: cross_entropy(x, t, reduction="none", block=block, **options),
        lambda x: cross_entropy_reference(x, t, **options),
        data(n, v, scale=2.0),
    )


def test_the_reference_is_the_librarys_loss_and_pytorchs(data, device, check):
    x, t = data(8, 31, grad=False).double(), targets(8, 31, device)
    for smooth in (0.0, 0.3):
        ours = cross_entropy_reference(x, t, label_smoothing=smooth)
        library = plain(x, t, label_smoothing=smooth, reduction="none")
        theirs = torch.nn.functional.cross_entropy(x, t, label_smoothing=smooth, reduction="none")
        torch.testing.assert_close(ours, library)
        torch.testing.assert_close(ours, theirs)


def test_reductions_and_all_ignored(data, device, check):
    x, t = data(2, 4, 31, grad=False), targets(8, 31, device).view(2, 4)
    exact = cross_entropy_reference(x.double(), t)
    check(cross_entropy(x, t), exact.sum() / (t != -100).sum())
    check(cross_entropy(x, t, reduction="sum"), exact.sum())
    nothing = torch.full_like(t, -100)
    assert cross_entropy(x, nothing).isnan()
    assert cross_entropy(x, nothing, reduction="sum") == 0
    x.requires_grad_()
    cross_entropy(x, nothing, reduction="sum").backward()
    assert (x.grad == 0).all()


def test_huge_logits_and_impossible_tokens(data, device, check):
    x, t = data(6, 50, scale=1e4, grad=False).float(), targets(6, 50, device)
    check(cross_entropy(x, t), plain(x.double(), t))
    x[:, 7] = -torch.inf
    t[t == 7] = 8
    check(cross_entropy(x, t, block=4), plain(x.double(), t))


def test_logprobs_of_chosen_tokens(data, device, check):
    x, t = data(3, 5, 31, grad=False), targets(15, 31, device).view(3, 5)
    exact = x.double().log_softmax(-1).gather(-1, t.clamp(min=0)[..., None])[..., 0]
    check(selective_logprob(x, t), exact.masked_fill(t == -100, 0.0))


def test_mistakes_are_named(data, device):
    x = data(3, 5, grad=False)
    if device == "cpu":
        with pytest.raises(ValueError, match="targets must lie in 0 … 4"):
            cross_entropy(x, torch.tensor([0, 5, 1]))
    else:
        assert cross_entropy(x, torch.tensor([0, 5, 1], device=device)).isnan()
    with pytest.raises(ValueError, match="reduction 'max'"):
        cross_entropy(x, torch.zeros(3, dtype=torch.long, device=device), reduction="max")


@pytest.mark.parametrize("wrong", ["no −1 at the target", "off by one", "mean over all rows"])
def test_wrong_versions_are_seen(data, device, check, wrong):
    x, t = data(8, 31, grad=False).double(), targets(8, 31, device)
    if wrong == "mean over all rows":
        other = cross_entropy_reference(x, t).mean()
    elif wrong == "off by one":
        other = cross_entropy_reference(x, torch.where(t < 0, t, (t + 1) % 31)).sum() / 6
    else:
        other = x.logsumexp(-1).mean()
    with pytest.raises(AssertionError):
        check(cross_entropy(x.float(), t), other)
