"""Sizes, errors and parts of LLaMA; tests/parity/test_llama_family.py compares what it computes."""

import pytest
import torch

from minillm.models.llama import (
    LLAMA1_SIZES,
    LLAMA2_SIZES,
    LLAMA3_1_SIZES,
    LLAMA3_SIZES,
    SMOLLM2_SIZES,
    Llama,
    Llama3Config,
    LlamaConfig,
    llama,
    llama1,
    llama2,
    llama3,
    llama3_1,
    smollm2,
)
from minillm.nn import RMSNorm, rotary_frequencies

# What the published checkpoints hold.
PARAMETERS = {
    (llama1, "7b"): 6_738_415_616,
    (llama1, "13b"): 13_015_864_320,
    (llama1, "33b"): 32_528_943_616,
    (llama1, "65b"): 65_285_660_672,
    (llama2, "70b"): 68_976_648_192,
    (llama3, "8b"): 8_030_261_248,
    (llama3, "70b"): 70_553_706_496,
    (llama3_1, "1b"): 1_235_814_400,
    (llama3_1, "3b"): 3_212_749_824,
    (llama3_1, "405b"): 405_853_388_800,
    (smollm2, "135m"): 134_515_008,
    (smollm2, "360m"): 361_821_120,
    (smollm2, "1.7b"): 1_711_376_384,
}
SIZES = {llama1: LLAMA1_SIZES, llama2: LLAMA2_SIZES, llama3: LLAMA3_SIZES,
         llama3_1: LLAMA3_1_SIZES, smollm2: SMOLLM2_SIZES}  # fmt: skip
TINY = {"vocab_size": 11, "max_seq_len": 9, "d_model": 12, "n_layers": 2, "n_heads": 3}


def count(preset, size):
    """The parameters of all layers from models of one and two: the same, and soon made."""
    with torch.device("meta"):
        one, two = (sum(p.numel() for p in preset(size, n_layers=n).parameters()) for n in (1, 2))
    return one + (SIZES[preset][size]["n_layers"] - 1) * (two - one)


@pytest.mark.parametrize(("preset", "size"), PARAMETERS, ids=lambda x: getattr(x, "__name__", x))
def test_sizes_have_the_published_number_of_parameters(preset, size):
    assert count(preset, size) == PARAMETERS[preset, size]


def test_only_the_largest_llama_2_shares_keys_and_values():
    with torch.device("meta"):
        shares = {size: llama2(size, n_layers=1).config for size in ("7b", "13b", "70b")}
        assert llama3("8b", n_layers=1).config.n_kv_heads == 8
    assert {size: c.n_heads // c.n_kv_heads for size, c in shares.items()} == {
        "7b": 1,
        "13b": 1,
        "70b": 8,
    }


def test_numbers_left_out_follow_from_the_others():
    config = LlamaConfig(**{**TINY, "d_model": 768})
    assert (config.n_kv_heads, config.d_head, config.d_ff) == (3, 256, 2048)
    assert LlamaConfig(**TINY, d_head=10).d_head == 10


def test_starts_from_small_weights_and_untouched_norms():
    torch.manual_seed(0)
    model = llama(**{**TINY, "d_model": 96, "vocab_size": 200})
    for name, p in model.named_parameters():
        if p.dim() == 2:
            assert 0.018 < p.std() < 0.022, name
        else:
            assert bool((p == 1).all()), name


def test_llama_3_1_slows_the_slow_rotations_only():
    model = llama3_1(**{**TINY, "d_model": 192, "n_kv_heads": 1, "rope_factor": 8.0})
    found = model.blocks[0].attention.rotary.frequencies
    plain = rotary_frequencies(64, base=500000.0)
    turns = 8192 * plain / (2 * torch.pi)
    assert torch.equal(found[turns > 4], plain[turns > 4])
    torch.testing.assert_close(found[turns < 1], plain[turns < 1] / 8)
    assert bool((found <= plain).all()) and len(set(found.tolist())) == 32


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"d_model": 13}, "d_model 13 is not divisible by n_heads 3; give d_head"),
        ({"n_heads": 0}, "n_heads must be a whole number, at least 1, got 0"),
        ({"n_kv_heads": 2}, "n_kv_heads 2 must divide n_heads 3"),
        ({"d_head": 5}, "d_rotary 5 is odd"),
        ({"d_ff": 0}, "d_ff must be a whole number"),
        ({"norm_eps": 1.0}, "norm_eps must be in"),
        ({"rope_theta": 1.0}, "base must be a number above 1"),
    ],
    ids=str,
)
def test_errors_name_the_value(numbers, message):
    with pytest.raises((ValueError, TypeError), match=message):
        llama(**{**TINY, **numbers})


def test_unknown_sizes():
    with pytest.raises(ValueError, match="unknown size '8b'; choose from 7b, 13b, 70b"):
        llama2("8b")


def test_a_cousin_of_your_own_is_a_block_handed_in():
    """Norms after the parts instead of before: nothing in the class has to know."""
    from minillm.models.llama import llama_block
    from minillm.nn import PostNormBlock

    def block(c, ops):
        made = llama_block(c, ops)
        return PostNormBlock(made.attention, made.ffn, made.attention_norm, made.ffn_norm)

    model = Llama(LlamaConfig(**TINY), block=block)
    assert isinstance(model.blocks[1], PostNormBlock)
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 11)
    assert isinstance(model.final_norm, RMSNorm)
    assert Llama3Config(**TINY).rope_factor == 8.0
