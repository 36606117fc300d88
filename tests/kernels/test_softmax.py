import pytest
import torch

from minillm.kernels.softmax import softmax, softmax_reference


@pytest.mark.parametrize("d", [1, 7, 123, 128, 1000])
@pytest.mark.parametrize("block", [None, 32], ids=["one block", "blocks of 32"])
def test_value_and_gradient(agree, data, d, block):
    agree(lambda x: softmax(x, block=block), softmax_reference, data(2, 3, d))


@pytest.mark.parametrize("block", [None, 4])
def test_huge_scores_and_hidden_ones(data, check, block):
    x = data(3, 11, scale=1e4, grad=False)
    x[1, 3:] = -torch.inf
    check(softmax(x, block=block), torch.softmax(x.double(), -1))
    assert (softmax(x, block=block)[1, 3:] == 0).all()
    nothing = torch.full((1, 5), -torch.inf, dtype=x.dtype, device=x.device)
    assert softmax(nothing, block=8).isnan().all()


def test_strided_and_empty_inputs(data, agree):
    x = data(6, 5, grad=False)
    assert torch.equal(softmax(x.T), softmax(x.T.contiguous()))
    assert softmax(x[:0]).shape == (0, 5)


def test_the_maximum_matters(data):
    """Without it the same formula overflows: why the kernel subtracts."""
    x = data(1, 8, scale=1e3, grad=False).float()
    assert (x.exp() / x.exp().sum(-1, keepdim=True)).isnan().any()
    assert softmax(x).isfinite().all()
