import pytest
import torch

from minillm.kernels.layer_norm import layer_norm
from minillm.nn import layer_norm as layer_norm_reference


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 123), (9, 64)], ids=str)
def test_value_and_gradients(agree, data, shape):
    agree(layer_norm, layer_norm_reference, data(*shape), data(shape[-1]), data(shape[-1]))


def test_without_weight_and_bias_strided_and_empty(data):
    x = data(6, 5, grad=False)
    assert torch.equal(layer_norm(x.T), layer_norm(x.T.contiguous()))
    assert layer_norm(x[:0]).shape == (0, 5)


def test_a_large_mean_costs_no_digits(data, check):
    """E(x²) − E(x)² would lose them; the kernel centers first."""
    x = data(3, 64, grad=False).float() + 1000
    exact = layer_norm_reference(x.double())
    one_pass = (x - x.mean(-1, keepdim=True)) * torch.rsqrt(
        x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square() + 1e-5
    )
    error = (layer_norm(x).double() - exact).abs().max()
    assert error < 1e-3 < (one_pass.double() - exact).abs().max()


@pytest.mark.parametrize("wrong", ["divide by d − 1", "no mean"])
def test_wrong_versions_are_seen(data, check, wrong):
    x = data(4, 9, grad=False)
    wide = x.double()
    centered = wide if wrong == "no mean" else wide - wide.mean(-1, keepdim=True)
    scale = centered.square().sum(-1, keepdim=True) / (9 if wrong == "no mean" else 8)
    with pytest.raises(AssertionError):
        check(layer_norm(x), centered / (scale + 1e-5).sqrt())
