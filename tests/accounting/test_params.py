import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.accounting import (
    attention_parameters,
    ffn_parameters,
    gpt_parameters,
    norm_parameters,
)
from minillm.models.gpt import GPT2_SIZES, gpt1, gpt2
from minillm.nn import FeedForward, LayerNorm, MultiHeadAttention, RMSNorm

PUBLISHED = {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "xl": 1_557_611_200}


def numel(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", PUBLISHED)
def test_gpt2_sizes(size):
    numbers = GPT2_SIZES[size]
    count = gpt_parameters(50257, 1024, numbers["d_model"], numbers["n_layers"])
    with torch.device("meta"):
        ours = gpt2(size)
        theirs = GPT2LMHeadModel(
            GPT2Config(
                n_embd=numbers["d_model"], n_layer=numbers["n_layers"], n_head=numbers["n_heads"]
            )
        )
    assert count.total == numel(ours) == numel(theirs) == PUBLISHED[size]
    assert count.tokens == ours.tokens.weight.numel()
    assert count.attention == sum(numel(b.attention) for b in ours.blocks)
    assert count.ffn == sum(numel(b.ffn) for b in ours.blocks)
    approximation = 12 * numbers["n_layers"] * numbers["d_model"] ** 2
    assert count.non_embedding == pytest.approx(approximation, rel=0.01)


def test_gpt1():
    with torch.device("meta"):
        model = gpt1()
    count = gpt_parameters(40478, 512, 768, 12, final_norm=False)
    assert count.total == numel(model) == 116_534_784


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("h", "g", "p"), [(4, 4, None), (4, 2, None), (4, 1, 5), (3, 3, 7)])
def test_layers(h, g, p, bias):
    layer = MultiHeadAttention(12, h, n_kv_heads=g, d_head=p, bias=bias)
    assert numel(layer) == attention_parameters(12, h, n_kv_heads=g, d_head=p, bias=bias)
    assert numel(FeedForward(12, 31, bias=bias)) == ffn_parameters(12, 31, bias=bias)
    assert numel(LayerNorm(12, bias=bias)) == norm_parameters(12, bias=bias)
    assert numel(RMSNorm(12)) == norm_parameters(12, bias=False)


def test_odd_feed_forward_width():
    with torch.device("meta"):
        model = gpt2(vocab_size=7, max_seq_len=5, d_model=6, n_layers=3, n_heads=2, d_ff=31)
    assert gpt_parameters(7, 5, 6, 3, d_ff=31).total == numel(model)


def test_error_names_the_numbers():
    with pytest.raises(ValueError, match="d_model 10 is not divisible by n_heads 3"):
        attention_parameters(10, 3)
