import pytest
import torch

from minillm.kernels.int8_matmul import int8_matmul, quantize_int8

TILE = (16, 16, 32)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 37, 70), (19, 5, 33)], ids=str)
def test_value_and_gradient(agree, data, dtype, shape):
    n, o, d = shape
    weight, scale = quantize_int8(data(o, d, scale=0.2, grad=False))

    def reference(x):
        return x @ (weight.to(x.dtype) * scale.to(x.dtype)[:, None]).T

    floor = None if dtype == torch.float32 else 4e-3
    agree(lambda x: int8_matmul(x, weight, scale, tile=TILE), reference, data(n, d), floor=floor)


def test_quantizing_is_off_by_half_a_step_at_most(data, device):
    w = data(7, 50, grad=False).float()
    w[3] = 0
    weight, scale = quantize_int8(w)
    assert weight.dtype == torch.int8 and int(weight.abs().max()) == 127 and scale[3] == 1
    error = (weight.float() * scale[:, None] - w).abs()
    assert (error <= scale[:, None] / 2 * 1.001).all()


def test_a_forgotten_scale_is_seen(data, check):
    x = data(3, 20, grad=False)
    weight, scale = quantize_int8(data(4, 20, grad=False))
    with pytest.raises(AssertionError):
        check(int8_matmul(x, weight, scale, tile=TILE), x.double() @ weight.double().T)
