import pytest
import torch

from minillm.kernels.rms_norm import rms_norm
from minillm.nn import rms_norm as rms_norm_reference


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 123), (9, 64)], ids=str)
def test_value_and_gradients(agree, data, shape):
    agree(rms_norm, rms_norm_reference, data(*shape), data(shape[-1]))


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 65)], ids=str)
def test_with_a_residual_both_outputs_and_all_three_gradients(agree, data, shape):
    def reference(x, weight, residual):
        h = x + residual
        return rms_norm_reference(h, weight), h

    def kernel(x, weight, residual):
        return rms_norm(x, weight, residual=residual)

    agree(kernel, reference, data(*shape), data(shape[-1]), data(*shape))


def test_without_a_weight_strided_and_empty(data):
    x = data(6, 5, grad=False)
    ones = torch.ones(6, dtype=x.dtype, device=x.device)
    assert torch.equal(rms_norm(x.T), rms_norm(x.T.contiguous(), ones))
    assert rms_norm(x[:0], None).shape == (0, 5)


def test_eps_is_inside_the_root(data, check):
    x = data(3, 8, scale=1e-2, grad=False)
    check(rms_norm(x, eps=1e-2), rms_norm_reference(x.double(), eps=1e-2))
    wrong = x.double() / (x.double().square().mean(-1, keepdim=True).sqrt() + 1e-2)
    with pytest.raises(AssertionError):
        check(rms_norm(x, eps=1e-2), wrong)
