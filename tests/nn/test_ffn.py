import pytest
import torch
import torch.nn.functional as F

from minillm.nn import (
    TORCH_OPS,
    FeedForward,
    GatedFeedForward,
    gated_width,
    geglu,
    geglu_tanh,
    gelu_exact,
    gelu_tanh,
    relu,
    silu,
    swiglu,
)

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


GATED = {
    "swiglu": (swiglu, F.silu),
    "geglu": (geglu, F.gelu),
    "geglu_tanh": (geglu_tanh, lambda x: F.gelu(x, approximate="tanh")),
}


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("bias", [False, True])
def test_gated_feed_forward_is_three_matrices(name, bias):
    """The oracles, LlamaMLP, T5 1.1 and ModernBERT, are in tests/parity/test_layers.py."""
    torch.manual_seed(0)
    gated, activation = GATED[name]
    ffn = GatedFeedForward(5, 11, gated=gated, bias=bias).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    gate, up = (F.linear(x, part.weight, part.bias) for part in (ffn.gate, ffn.up))
    expected = F.linear(activation(gate) * up, ffn.down.weight, ffn.down.bias)
    torch.testing.assert_close(ffn(x), expected, atol=1e-12, rtol=0)
    assert (ffn.gate.bias is None) == (not bias)


def test_a_gate_of_one_leaves_the_projection_and_dropout_acts_on_the_product():
    torch.manual_seed(0)
    ffn = GatedFeedForward(5, 1000, gated=lambda gate, up: torch.ones_like(up), dropout=0.5)
    with torch.no_grad():
        ffn.down.weight.fill_(1.0)
    kept = ffn(torch.randn(20, 5)) / 2
    assert kept.min() > 400
    assert kept.max() < 600
    assert ffn.eval()(torch.randn(1, 5)).max() == 1000


def test_gated_width_is_that_of_the_published_models():
    published = {4096: 11008, 5120: 13824, 6656: 17920, 8192: 22016}  # LLaMA 7B … 65B
    assert {d: gated_width(d) for d in published} == published
    assert gated_width(8192, multiple_of=4096, factor=1.3) == 28672  # Llama 2 70B, Llama 3 70B
    assert gated_width(4096, multiple_of=1024, factor=1.3) == 14336  # Llama 3 8B
    with pytest.raises(ValueError, match="factor must be a number above 0"):
        gated_width(512, factor=0)


def test_a_gated_layer_of_that_width_has_the_weights_of_a_plain_one():
    d = 768
    plain = sum(p.numel() for p in FeedForward(d, 4 * d, bias=False).parameters())
    gated = sum(p.numel() for p in GatedFeedForward(d, gated_width(d)).parameters())
    assert gated == plain
