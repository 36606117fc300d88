"""Falcon's three forms: sizes, parts, and what transformers does with ALiBi."""

import copy
import math

import pytest
import torch

from minillm.hub import to_hf
from minillm.models.falcon import FalconConfig, falcon_7b, falcon_40b, falcon_rw
from minillm.nn import ParallelBlock, PreNormBlock, alibi_attention

TINY = {"vocab_size": 11, "max_seq_len": 9, "d_model": 24, "n_layers": 2, "n_heads": 6}


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_sizes_have_the_number_of_parameters_that_transformers_makes_of_them():
    import transformers as hf

    settings = {"new_decoder_architecture": True, "num_kv_heads": 8}
    for model, config in (
        (falcon_7b, hf.FalconConfig(num_hidden_layers=2)),
        (falcon_40b, hf.FalconConfig(hidden_size=8192, num_hidden_layers=2,
                                     num_attention_heads=128, **settings)),
        (falcon_rw, hf.FalconConfig(vocab_size=50304, hidden_size=2048, num_hidden_layers=2,
                                    num_attention_heads=32, alibi=True, bias=True,
                                    multi_query=False, parallel_attn=False)),
    ):  # fmt: skip
        with torch.device("meta"):
            assert count(model(n_layers=2)) == count(hf.FalconForCausalLM(config))
    with torch.device("meta"):
        assert count(falcon_7b()) == 6_921_720_704  # of the published checkpoint


def test_three_forms():
    small, large, refined = (preset(**TINY) for preset in (falcon_7b, lambda **k: falcon_40b(
        **{**k, "n_kv_heads": 2}), falcon_rw))  # fmt: skip
    assert [m.config.n_kv_heads for m in (small, large, refined)] == [1, 2, 6]
    assert isinstance(small.blocks[0], ParallelBlock) and small.blocks[0].ffn_norm is None
    assert isinstance(large.blocks[0], ParallelBlock) and large.blocks[0].ffn_norm is not None
    assert isinstance(refined.blocks[0], PreNormBlock)
    assert [m.blocks[0].attention.query.bias is None for m in (small, large, refined)] == [
        True, True, False
    ]  # fmt: skip
    assert refined.blocks[0].attention.rotary is None


def test_transformers_adds_alibi_twice_in_its_eager_attention():
    """Its SDPA path adds it once, as the model was trained; so SDPA is the oracle (5.23)."""
    import transformers as hf

    config = hf.FalconConfig(
        vocab_size=11, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, alibi=True,
        bias=True, multi_query=False, parallel_attn=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    once, tokens = falcon_rw(**{**TINY, "n_heads": 4}), torch.randint(11, (2, 9))
    with torch.no_grad():
        for p in once.parameters():
            p += 0.3 * torch.randn_like(p)
    logits = {}
    for how in ("sdpa", "eager"):
        config._attn_implementation = how
        theirs = hf.FalconForCausalLM(config).eval()
        theirs.load_state_dict(to_hf(once))
        logits[how] = theirs(tokens).logits
    twice = copy.deepcopy(once)
    for block in twice.blocks:
        block.attention.attention = alibi_attention(4, strength=2 / math.sqrt(6))
    assert (once(tokens) - logits["sdpa"]).abs().max() < 1e-5
    assert (twice(tokens) - logits["eager"]).abs().max() < 1e-5
    assert (once(tokens) - logits["eager"]).abs().max() > 1e-2


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="d_model 25 is not divisible by n_heads 6"):
        FalconConfig(**{**TINY, "d_model": 25})
    with pytest.raises(ValueError, match="unknown size '7b'; choose from 40b, 180b"):
        falcon_40b("7b")
