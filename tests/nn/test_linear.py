import pytest
import torch
import torch.nn.functional as F

from minillm.nn import TORCH_OPS, FeedForward, Linear, MultiHeadAttention
from minillm.nn.linear import linear
from minillm.nn.ops import torch_attention

SHAPES = [(333,), (1, 333), (1, 1, 333), (2, 333), (3, 5, 333)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("d_out", [7, 417])  # one small, one large enough for the other path
@pytest.mark.parametrize("op", [linear, TORCH_OPS.linear])
def test_equals_the_definition_with_gradients(op, shape, d_out, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(d_out, 333, requires_grad=True)
    b = torch.randn(d_out, requires_grad=True) if bias else None
    inputs = [t for t in (x, weight, b) if t is not None]
    wide = [t.detach().double().requires_grad_() for t in inputs]
    right = torch.einsum("...d,fd->...f", wide[0], wide[1]) + (wide[2] if bias else 0)
    out = op(x, weight, b)
    assert out.shape == right.shape
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), right, atol=1e-4, rtol=0)
    ours = torch.autograd.grad(out.sin().sum(), inputs)
    theirs = torch.autograd.grad(right.sin().sum(), wide)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, atol=2e-3, rtol=0)


def test_one_vector_is_as_accurate_as_pytorch():
    torch.manual_seed(1)
    x, weight = torch.randn(1, 1, 1000), torch.randn(900, 1000)
    right = F.linear(x.double(), weight.double())
    ours, theirs = TORCH_OPS.linear(x, weight), F.linear(x, weight)
    assert (ours - right).abs().max() <= 2 * (theirs - right).abs().max()
    assert not torch.equal(ours, theirs)  # else the other path was not taken


def test_other_types_take_pytorchs_path():
    for dtype in (torch.float64, torch.bfloat16):
        x, weight = torch.randn(1, 500, dtype=dtype), torch.randn(400, 500, dtype=dtype)
        assert torch.equal(TORCH_OPS.linear(x, weight), F.linear(x, weight))


def test_output_is_contiguous():
    """Else PyTorch's attention would not take its fused kernel for a query made from it."""
    x, weight, bias = torch.randn(1, 1, 400), torch.randn(400, 400), torch.randn(400)
    for out in (TORCH_OPS.linear(x, weight, bias), TORCH_OPS.linear(x, weight)):
        assert out.is_contiguous()


def test_layers_use_the_operation_they_are_given():
    calls = []

    def counted(x, weight, bias=None):
        calls.append(tuple(weight.shape))
        return linear(x, weight, bias)

    x = torch.randn(2, 3, 12)
    MultiHeadAttention(12, 3, n_kv_heads=1, attention=torch_attention, linear=counted)(x)
    assert sorted(calls) == [(4, 12), (4, 12), (12, 12), (12, 12)]
    FeedForward(12, 30, linear=counted)(x)
    assert calls[4:] == [(30, 12), (12, 30)]


def test_layer_is_pytorchs_in_all_else():
    torch.manual_seed(2)
    ours = Linear(5, 3)
    torch.manual_seed(2)
    theirs = torch.nn.Linear(5, 3)
    x = torch.randn(4, 5)
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert Linear(5, 3, bias=False).bias is None
