import pytest
import torch
import torch.nn.functional as F

from minillm.nn import TORCH_OPS, FeedForward, gelu_exact, gelu_tanh, relu, silu

PAIRS = {
    "relu": (relu, F.relu),
    "gelu_exact": (gelu_exact, F.gelu),
    "gelu_tanh": (gelu_tanh, lambda x: F.gelu(x, approximate="tanh")),
    "torch_gelu_tanh": (TORCH_OPS.gelu_tanh, lambda x: F.gelu(x, approximate="tanh")),
    "silu": (silu, F.silu),
}


@pytest.mark.parametrize("name", PAIRS)
def test_activation_equals_torch_with_gradient(name):
    ours, theirs = PAIRS[name]
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-12, rtol=0)
    (a,) = torch.autograd.grad(ours(x).sum(), x)
    (b,) = torch.autograd.grad(theirs(x).sum(), x)
    away = x.abs() > 0  # the derivative of relu at 0 is a convention
    torch.testing.assert_close(a[away], b[away], atol=1e-12, rtol=0)


def test_the_two_gelus_differ_by_less_than_a_thousandth_but_differ():
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    assert 1e-4 < (gelu_exact(x) - gelu_tanh(x)).abs().max() < 1e-3


def test_a_coefficient_with_a_lost_zero_is_rejected():
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    wrong = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.44715 * x**3)))
    assert (wrong - F.gelu(x, approximate="tanh")).abs().max() > 1e-2


def test_feed_forward_is_two_linears():
    torch.manual_seed(0)
    ffn = FeedForward(5, 11, activation=relu).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    up = x @ ffn.up.weight.T + ffn.up.bias
    expected = up.relu() @ ffn.down.weight.T + ffn.down.bias
    torch.testing.assert_close(ffn(x), expected, atol=1e-12, rtol=0)
    assert FeedForward(5, 11, bias=False).up.bias is None


def test_dropout_acts_in_training_only():
    ffn = FeedForward(5, 64, dropout=0.5)
    x = torch.randn(3, 5)
    assert not torch.equal(ffn(x), ffn(x))
    ffn.eval()
    assert torch.equal(ffn(x), ffn(x))


def test_dropout_acts_between_the_activation_and_the_second_layer():
    torch.manual_seed(0)
    ffn = FeedForward(5, 1000, activation=torch.ones_like, dropout=0.5, bias=False)
    with torch.no_grad():
        ffn.down.weight.fill_(1.0)
    kept = ffn(torch.randn(20, 5)) / 2  # how many of the 1000 ones were left
    assert kept.min() > 400
    assert kept.max() < 600
    assert len(kept[:, 0].unique()) > 5
