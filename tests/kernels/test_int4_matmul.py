import numpy as np
import pytest
import torch

from minillm.kernels.int4_matmul import dequantize_int4, int4_matmul, quantize_int4

TILE = (16, 16)


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize(("n", "o"), [(1, 1), (1, 37), (19, 5)])
def test_value_and_gradient(agree, data, dtype, group, n, o):
    packed, scale = quantize_int4(data(o, 128, scale=0.2, grad=False), group)

    def reference(x):
        return x @ dequantize_int4(packed, scale.to(x.dtype)).T

    floor = None if dtype == torch.float32 else 4e-3
    agree(lambda x: int4_matmul(x, packed, scale, tile=TILE), reference, data(n, 128), floor=floor)


def test_codes_are_those_of_ggufs_q4_0():
    """The scales there are float16 and the codes the same: 2 bytes of scale, 16 of nibbles."""
    gguf = pytest.importorskip("gguf")
    w = torch.randn(6, 64, generator=torch.Generator().manual_seed(4))
    packed, scale = quantize_int4(w, 32)
    raw = gguf.quants.quantize(w.numpy(), gguf.GGMLQuantizationType.Q4_0).reshape(6, 2, 18)
    assert (raw[:, :, 2:] == packed.view(6, 2, 16).numpy()).mean() > 0.99  # ties at half a step
    theirs = raw[:, :, :2].copy().view(np.float16)[..., 0]
    np.testing.assert_allclose(theirs, scale.numpy(), rtol=1e-3)


def test_dequantizing_reverses_the_packing(data):
    codes = torch.randint(0, 16, (3, 64), generator=torch.Generator().manual_seed(1))
    packed = torch.cat(
        [(codes[:, g : g + 16] | codes[:, g + 16 : g + 32] << 4) for g in (0, 32)], dim=1
    ).to(torch.uint8)
    ones = torch.ones(3, 2)
    assert torch.equal(dequantize_int4(packed, ones), codes.float() - 8)


def test_mistakes_are_named(data):
    with pytest.raises(ValueError, match="group 48 must be a power of two"):
        quantize_int4(data(4, 96, grad=False), 48)


@pytest.mark.parametrize("wrong", ["high nibble first", "no offset of 8"])
def test_wrong_versions_are_seen(data, check, wrong):
    x = data(3, 64, grad=False)
    packed, scale = quantize_int4(data(4, 64, grad=False))
    if wrong == "high nibble first":
        weight = dequantize_int4(packed << 4 | packed >> 4, scale.double())
    else:
        weight = dequantize_int4(packed, scale.double()) + 8 * scale.double().repeat_interleave(
            32, dim=1
        )
    with pytest.raises(AssertionError):
        check(int4_matmul(x, packed, scale, tile=TILE), x.double() @ weight.T)
