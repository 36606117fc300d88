"""BLOOM's sizes, and the layout of fused queries, keys and values that it shares with Falcon."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from minillm.models.bloom import BLOOM_SIZES, BloomConfig, GroupedHeads, bloom, fused_keys
from minillm.models.falcon import FalconConfig

# What the published checkpoints hold.
PARAMETERS = {
    "560m": 559_214_592,
    "1b1": 1_065_314_304,
    "1b7": 1_722_408_960,
    "3b": 3_002_557_440,
    "7b1": 7_069_016_064,
    "176b": 176_247_271_424,
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_sizes_have_the_published_number_of_parameters(size):
    with torch.device("meta"):  # all layers are alike: one and two tell of all
        one, two = (sum(p.numel() for p in bloom(size, n_layers=n).parameters()) for n in (1, 2))
    assert one + (BLOOM_SIZES[size]["n_layers"] - 1) * (two - one) == PARAMETERS[size]


def numbers(h, g):
    return FalconConfig(vocab_size=1, max_seq_len=1, d_model=4 * h, n_layers=1, n_heads=h,
                        n_kv_heads=g)  # fmt: skip


@pytest.mark.parametrize(("h", "g"), [(6, 6), (6, 1), (6, 2), (6, 3), (1, 1)])
@pytest.mark.parametrize("tail", [(), (7,)], ids=["bias", "weight"])
def test_fused_rows_are_cut_group_by_group(h, g, tail):
    config, p = numbers(h, g), 4
    rows = iter(range((h + 2 * g) * p))
    want = {"q": [], "k": [], "v": []}
    for _ in range(g):  # each key head: its query heads, itself, its value
        for name in ["q"] * (h // g) + ["k", "v"]:
            want[name] += itertools.islice(rows, p)
    fused = torch.randn((h + 2 * g) * p, *tail)
    parts = GroupedHeads().split(fused, config)
    for part, name in zip(parts, "qkv", strict=True):
        assert torch.equal(part, fused[want[name]])
    assert torch.equal(GroupedHeads().join(parts, config), fused)
    side_by_side = fused.split([h * p, g * p, g * p])
    assert all(map(torch.equal, parts, side_by_side)) == (g == 1)


def test_errors_name_the_value():
    config = numbers(6, 2)
    with pytest.raises(ValueError, match=r"39 rows, but 6 \+ 2 · 2 heads of 4 have 40"):
        GroupedHeads().split(torch.zeros(39, 3), config)
    with pytest.raises(ValueError, match="d_model 10 is not divisible by n_heads 3"):
        BloomConfig(vocab_size=5, max_seq_len=5, d_model=10, n_layers=1, n_heads=3)
    with pytest.raises(ValueError, match="unknown size '7b'"):
        bloom("7b")
    assert len(fused_keys("", bias=True)) == 2 * len(fused_keys("", bias=False)) == 8


def test_transformers_rounds_the_constant_of_the_gelu_to_eight_digits():
    """Which is why tests/parity lifts it: the difference is small, but above 1e-9."""
    from transformers.models.bloom.modeling_bloom import bloom_gelu_forward

    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    gap = (bloom_gelu_forward(x) - F.gelu(x, approximate="tanh")).abs().max()
    assert 1e-10 < gap < 1e-8
