"""Sizes of LLaMA's cousins, and that each differs from LLaMA where it says, and nowhere else."""

import pytest
import torch
from torch import nn

from minillm.models.llama import llama
from minillm.models.llama_cousins import (
    BAICHUAN_SIZES,
    GEMMA_SIZES,
    MISTRAL_SIZES,
    QWEN2_SIZES,
    QWEN3_SIZES,
    baichuan_7b,
    baichuan_13b,
    gemma,
    mistral,
    mistral_0_2,
    qwen2,
    qwen3,
)
from minillm.nn import OffsetRMSNorm, RMSNorm, SparseAttention
from minillm.nn import scaled_dot_product_attention as sdpa

# What the published checkpoints hold.
PARAMETERS = {
    (mistral, "7b"): 7_241_732_096,
    (mistral_0_2, "7b"): 7_241_732_096,
    (qwen2, "0.5b"): 494_032_768,
    (qwen2, "1.5b"): 1_543_714_304,
    (qwen2, "7b"): 7_615_616_512,
    (qwen2, "72b"): 72_706_203_648,
    (qwen3, "0.6b"): 596_049_920,
    (qwen3, "1.7b"): 1_720_574_976,
    (qwen3, "4b"): 4_022_468_096,
    (qwen3, "8b"): 8_190_735_360,
    (qwen3, "14b"): 14_768_307_200,
    (qwen3, "32b"): 32_762_123_264,
    (gemma, "2b"): 2_506_172_416,
    (gemma, "7b"): 8_537_680_896,
    (baichuan_7b, "7b"): 7_000_559_616,
    (baichuan_13b, "13b"): 13_264_901_120,
}
SIZES = {mistral: MISTRAL_SIZES, mistral_0_2: MISTRAL_SIZES, qwen2: QWEN2_SIZES,
         qwen3: QWEN3_SIZES, gemma: GEMMA_SIZES, baichuan_7b: BAICHUAN_SIZES,
         baichuan_13b: BAICHUAN_SIZES}  # fmt: skip
TINY = {"vocab_size": 11, "max_seq_len": 9, "d_model": 12, "n_layers": 1, "n_heads": 3,
        "n_kv_heads": 1, "d_head": 4, "d_ff": 8, "tied": False}  # fmt: skip


def count(preset, size):
    """The parameters of all layers from models of one and two: the same, and soon made."""
    named = (size,) if preset not in (baichuan_7b, baichuan_13b) else ()
    with torch.device("meta"):
        one, two = (sum(p.numel() for p in preset(*named, n_layers=n).parameters()) for n in (1, 2))
    return one + (SIZES[preset][size]["n_layers"] - 1) * (two - one)


@pytest.mark.parametrize(("preset", "size"), PARAMETERS, ids=lambda x: getattr(x, "__name__", x))
def test_sizes_have_the_published_number_of_parameters(preset, size):
    assert count(preset, size) == PARAMETERS[preset, size]


def names(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_parameters_differ_from_llamas_where_they_say():
    plain, attention = names(llama(**TINY)), "blocks.0.attention."
    assert names(mistral(**TINY)) == names(gemma(**TINY)) == plain
    extra = names(qwen2(**TINY)).items() - plain.items()
    assert dict(extra) == {
        attention + "query.bias": (12,),
        attention + "key.bias": (4,),
        attention + "value.bias": (4,),
    }  # fmt: skip
    extra = names(qwen3(**TINY)).items() - plain.items()
    assert dict(extra) == {
        attention + "query_norm.weight": (4,), attention + "key_norm.weight": (4,)
    }  # fmt: skip


def test_parts_without_parameters():
    assert isinstance(mistral(**TINY, window=3).blocks[0].attention.attention, SparseAttention)
    assert mistral_0_2(**TINY).blocks[0].attention.attention is sdpa
    assert baichuan_13b(**TINY).blocks[0].attention.rotary is None
    assert baichuan_7b(**TINY).blocks[0].attention.rotary is not None
    model = gemma(**TINY)
    norms = [m for m in model.modules() if isinstance(m, RMSNorm | OffsetRMSNorm)]
    assert len(norms) == 3 and all(isinstance(m, OffsetRMSNorm) for m in norms)
    assert model.embedding_scale == 12**0.5


def test_a_window_that_is_no_number_is_refused():
    with pytest.raises((ValueError, TypeError), match="window"):
        mistral(**TINY, window=0)


def test_mistral_reaches_back_a_window_per_layer():
    torch.manual_seed(0)
    model = mistral(**{**TINY, "max_seq_len": 20, "n_layers": 2, "window": 4}).double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
        tokens = torch.randint(11, (1, 12))
        last = model(tokens)[0, -1]
        reach = []
        for t in range(12):
            other = tokens.clone()
            other[0, t] = (other[0, t] + 1) % 11
            reach.append(not torch.equal(model(other)[0, -1], last))
    assert reach == [False] * 5 + [True] * 7  # itself, and 3 more in each of the two layers


def test_every_linear_layer_of_the_block_uses_the_ops_handed_in():
    from minillm.nn import TORCH_OPS

    for preset in (mistral, qwen2, qwen3, gemma, baichuan_7b, baichuan_13b):
        model = preset(**TINY, ops=TORCH_OPS)
        linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
        assert len(linears) == 8 and all(m.op is TORCH_OPS.linear for m in linears)
