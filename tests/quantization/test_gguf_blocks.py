"""Block formats against the `gguf` package: the same bytes, and the same numbers from bytes."""

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize as their_numbers
from gguf.quants import quantize as their_bytes

from minillm.quantization.gguf_blocks import FORMATS, dequantize, format_named, quantize

KINDS = {name: gguf.GGMLQuantizationType[name] for name in FORMATS}


def weights(seed, rows=37, width=96):
    """Rows of very different sizes, some with ties, zeros, one sign only or one value only."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, width, generator=generator)
    w *= 10.0 ** torch.randint(-7, 3, (rows, 1), generator=generator)
    w[0] = 0.0
    w[1] = -3.25
    w[2, :32] = torch.arange(-16, 16) / 7  # a tie but for the sign
    w[3] = w[3].round() + 0.0  # which of 0 and -0 is the least, numpy leaves open
    w[4] = w[4].abs()
    w[5] = -w[5].abs()
    w[6, 1::2] = -w[6, ::2]  # every size twice, once of each sign
    w[7] = -0.0
    return w


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(8))
def test_the_bytes_are_those_of_the_gguf_package(name, seed):
    w = weights(seed)
    expected = their_bytes(w.numpy(), KINDS[name]).view(np.uint8).ravel()
    ours = quantize(w, FORMATS[name])
    assert len(ours) == FORMATS[name].size_of(w.shape) == len(expected)
    assert np.array_equal(ours.numpy(), expected)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", FORMATS)
def test_any_bytes_mean_the_same_numbers(name):
    kind = FORMATS[name]
    data = torch.randint(0, 256, (4001 * kind.n_bytes,), dtype=torch.uint8)
    shape = (4001, kind.n_values)
    expected = their_numbers(data.numpy().reshape(4001, -1), KINDS[name]).reshape(shape)
    ours = dequantize(data, kind, shape).numpy()
    assert np.array_equal(ours, expected, equal_nan=True)
    assert np.isnan(ours).any() and np.isfinite(ours).any()  # NaN scales were among them


@pytest.mark.parametrize(
    ("name", "worst"), [("Q4_0", 1 / 8), ("Q4_1", 1 / 15), ("Q5_0", 1 / 16), ("Q5_1", 1 / 31),
                        ("Q8_0", 1 / 254), ("F16", 2**-11), ("BF16", 2**-8), ("F32", 0.0)],
)  # fmt: skip
def test_what_a_weight_loses_is_at_most_a_step(name, worst):
    """In units of the block's largest weight; Q4_0 and Q5_0 lose a whole step at one end."""
    w = torch.randn(500, 32, generator=torch.Generator().manual_seed(3))
    kind = FORMATS[name]
    error = (dequantize(quantize(w, kind), kind, w.shape) - w).abs()
    unit = w.abs().amax(dim=1, keepdim=True)
    assert (error / unit).max() <= worst * 1.01 + 1e-3 * (kind.n_values == 32)
    if worst > 0:
        assert (error / unit).max() > worst / 3


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_a_second_pass_changes_nothing_or_little(name):
    """Numbers that a format can say come back; d itself is rounded to float16 in between."""
    kind, w = FORMATS[name], weights(9)
    once = dequantize(quantize(w, kind), kind, w.shape)
    twice = dequantize(quantize(once, kind), kind, w.shape)
    tolerance = 0.0 if kind.n_values == 1 else 2e-3
    assert ((once - twice).abs() <= tolerance * once.abs().amax(dim=1, keepdim=True)).all()


# --- named wrong versions ----------------------------------------------------------------------


def _neighbors_in_one_byte(w):
    q4_0 = FORMATS["Q4_0"]
    data = quantize(w.view(-1, 16, 2).transpose(1, 2).reshape(w.shape), q4_0)
    return data


def _scale_without_its_sign(w):
    data = quantize(w, FORMATS["Q4_0"]).view(-1, 18).clone()
    data[:, 1] &= 127
    return data.flatten()


def _rounded_to_even(w):
    d = w.view(-1, 32).abs().amax(1, keepdim=True) / 127
    q = torch.nan_to_num(w.view(-1, 32) / d).round().to(torch.int8).view(torch.uint8)
    return torch.cat([d.half().view(torch.uint8), q], 1).flatten()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [(_neighbors_in_one_byte, "Q4_0"), (_scale_without_its_sign, "Q4_0")],
)
def test_wrong_versions_give_other_bytes(wrong, name):
    w = weights(0)
    assert not np.array_equal(wrong(w).numpy(), their_bytes(w.numpy(), KINDS[name]).ravel())


def test_halves_are_rounded_away_from_zero():
    w = torch.zeros(1, 32)
    w[0, :4] = torch.tensor([127.0, 0.5, -2.5, 3.5])
    expected = their_bytes(w.numpy(), KINDS["Q8_0"]).ravel()
    assert np.array_equal(quantize(w, FORMATS["Q8_0"]).numpy(), expected)
    assert not np.array_equal(_rounded_to_even(w).numpy(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(torch.ones(2, 33), FORMATS["Q4_0"]), "rows of 33 weights"),
        (lambda: quantize(torch.full((2, 32), torch.nan), FORMATS["Q8_0"]), "hold NaN"),
        (lambda: quantize(torch.full((1, 32), 1e9), FORMATS["Q4_1"]), "beyond torch.float16's"),
        (lambda: quantize(torch.full((3,), 1e6), FORMATS["F16"]), "1e.06 is beyond"),
        (lambda: dequantize(torch.zeros(17).byte(), FORMATS["Q4_0"], (32,)), "takes 18 bytes"),
        (lambda: format_named("Q4_2"), "unknown format 'Q4_2'; choose from F32"),
    ],
)
def test_errors_name_the_value_and_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()
