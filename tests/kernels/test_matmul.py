import pytest
import torch

from minillm.kernels.matmul import linear, product
from minillm.nn import ffn

ACT = {None: lambda z: z, "silu": ffn.silu, "gelu": ffn.gelu_exact, "gelu_tanh": ffn.gelu_tanh}
TILE = (16, 16, 16)
HALF = 4e-3  # of half precision: sums over several tiles of numbers rounded once


@pytest.mark.parametrize("activation", ACT, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (17, 5, 33), (40, 23, 16)], ids=str)
def test_value_and_gradients(agree, data, dtype, activation, shape):
    n, o, d = shape

    def reference(x, weight, bias):
        return ACT[activation](x @ weight.T + bias)

    def kernel(x, weight, bias):
        return linear(x, weight, bias, activation=activation, tile=TILE)

    floor = None if dtype == torch.float32 else max(HALF, 1.6e-2 * (dtype == torch.bfloat16))
    agree(kernel, reference, data(n, d), data(o, d, scale=d**-0.5), data(o), floor=floor)


def test_without_bias_and_with_more_axes(data, check):
    x, weight = data(2, 3, 19, grad=False), data(7, 19, scale=0.2, grad=False)
    check(linear(x, weight, tile=TILE), x.double() @ weight.double().T)


def test_transposed_views_and_many_tiles_in_groups(data, check):
    """More rows of tiles than one group of eight, and a last group that is not full."""
    a, b = data(5, 16 * 19, grad=False).T, data(5, 40, grad=False).T
    check(product(a, b, tile=TILE), a.double() @ b.double().T, floor=None)


def test_mistakes_are_named(data):
    with pytest.raises(ValueError, match="activation 'relu' is unknown"):
        linear(data(2, 3), data(4, 3), activation="relu")


@pytest.mark.parametrize("wrong", ["no bias", "activation before the bias", "other GELU"])
def test_wrong_versions_are_seen(data, check, wrong):
    x, weight, bias = data(17, 33, grad=False).float(), data(9, 33, grad=False).float(), data(9)
    ours = linear(x, weight, bias.float(), activation="gelu", tile=TILE)
    z = x.double() @ weight.double().T
    other = {
        "no bias": ffn.gelu_exact(z),
        "activation before the bias": ffn.gelu_exact(z) + bias.double(),
        "other GELU": ffn.gelu_tanh(z + bias.double()),
    }[wrong]
    assert (ours.double() - other).abs().max() > 1e-4
