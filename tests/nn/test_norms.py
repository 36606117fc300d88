import pytest
import torch
import torch.nn.functional as F

from minillm.nn import TORCH_OPS, LayerNorm, OffsetRMSNorm, RMSNorm, layer_norm, rms_norm


def case(*shape):
    torch.manual_seed(0)
    x = torch.randn(*shape, dtype=torch.float64) * 3 + 1
    weight, bias = torch.randn(2, shape[-1], dtype=torch.float64)
    return [t.clone().requires_grad_() for t in (x, weight, bias)]


def assert_same_with_gradients(ours, expected, inputs):
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    probe = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * probe).sum(), inputs),
        torch.autograd.grad((expected * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (2, 3, 5), (2, 0, 4)], ids=str)
@pytest.mark.parametrize("op", [layer_norm, TORCH_OPS.layer_norm], ids=["reference", "torch"])
def test_layer_norm_equals_torch(shape, op):
    x, w, b = case(*shape)
    expected = F.layer_norm(x, shape[-1:], w, b, eps=1e-4)
    assert_same_with_gradients(op(x, w, b, 1e-4), expected, (x, w, b))
    torch.testing.assert_close(op(x), F.layer_norm(x, shape[-1:]))


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("op", [rms_norm, TORCH_OPS.rms_norm], ids=["reference", "torch"])
def test_rms_norm_equals_torch(shape, op):
    x, w, _ = case(*shape)
    assert_same_with_gradients(op(x, w, 1e-4), F.rms_norm(x, shape[-1:], w, eps=1e-4), (x, w))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x = (torch.randn(4, 64) * 100).to(dtype)  # squares overflow float16
    weight = torch.ones(64, dtype=dtype)
    assert torch.equal(layer_norm(x, weight), layer_norm(x.float()).to(dtype))
    assert torch.equal(rms_norm(x, weight), rms_norm(x.float()).to(dtype))
    assert rms_norm(x, weight).dtype == dtype


def wrong_unbiased_variance(x, w, b, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt() * w + b


def wrong_eps_outside(x, w, b, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / (x.var(-1, correction=0, keepdim=True).sqrt() + eps) * w + b


def wrong_axis(x, w, b, eps):
    return (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt() * w + b


def wrong_no_mean(x, w, b, eps):
    return rms_norm(x, w, eps) + b


@pytest.mark.parametrize(
    "wrong", [wrong_unbiased_variance, wrong_eps_outside, wrong_axis, wrong_no_mean]
)
def test_wrong_layer_norm_is_rejected(wrong):
    x, w, b = case(7, 13)
    expected = F.layer_norm(x, (13,), w, b, eps=1e-5)
    assert (wrong(x, w, b, 1e-5) - expected).abs().max() > 1e-7


def test_modules_start_as_the_identity_scale_and_equal_torch():
    ours, theirs = LayerNorm(6, eps=1e-3).double(), torch.nn.LayerNorm(6, eps=1e-3).double()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-12, rtol=0)
    ours, theirs = RMSNorm(6, eps=1e-3).double(), torch.nn.RMSNorm(6, eps=1e-3).double()
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-12, rtol=0)
    assert LayerNorm(6, bias=False).bias is None


@pytest.mark.parametrize("op", [rms_norm, TORCH_OPS.rms_norm])
def test_offset_norm_scales_by_one_plus_weight(op):
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

    torch.manual_seed(0)
    ours, theirs, x = (
        OffsetRMSNorm(13, eps=0.1, op=op),
        GemmaRMSNorm(13, eps=0.1),
        torch.randn(4, 13),
    )
    torch.testing.assert_close(ours(x), F.rms_norm(x, (13,), eps=0.1))  # weight 0 is scale 1
    ours.weight.data = theirs.weight.data = torch.randn(13)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=0)
    assert (ours(x) - F.rms_norm(x, (13,), ours.weight, 0.1)).abs().max() > 0.1
