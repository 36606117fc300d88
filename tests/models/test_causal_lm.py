"""The skeleton itself; what families hand in is tested with them and in tests/parity."""

from dataclasses import dataclass

import pytest
import torch

from minillm.generation import ContiguousCache
from minillm.models.causal_lm import CausalConfig, CausalLM
from minillm.nn import (
    GatedFeedForward,
    LearnedPositions,
    MultiHeadAttention,
    PreNormBlock,
    RMSNorm,
    Rotary,
    alibi_attention,
    rotary_frequencies,
)


@dataclass(frozen=True)
class Config:
    vocab_size: int = 31
    max_seq_len: int = 16
    d_model: int = 12
    n_layers: int = 2
    n_heads: int = 2
    n_kv_heads: int = 1
    d_head: int = 6


def build(config=Config(), *, rotary=None, attention=None, **parts):
    torch.manual_seed(0)
    given = {} if attention is None else {"attention": attention}
    blocks = [
        PreNormBlock(
            MultiHeadAttention(12, 2, n_kv_heads=1, bias=False, rotary=rotary, **given),
            GatedFeedForward(12, 20),
            RMSNorm(12),
            RMSNorm(12),
        )
        for _ in range(2)
    ]
    model = CausalLM(config, blocks, final_norm=RMSNorm(12), **parts).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


KINDS = {
    "rotary": {"rotary": Rotary(rotary_frequencies(6))},
    "alibi": {"attention": alibi_attention(2)},
    "learned": {"positions": LearnedPositions(16, 12)},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
TOKENS = torch.randint(31, (2, 11), generator=torch.Generator().manual_seed(1))


@EVERY_KIND
@torch.no_grad()
def test_chunks_through_a_cache_equal_one_pass(kind):
    model = build(**KINDS[kind])
    cache = ContiguousCache.for_model(model, batch=2)
    parts = [model(TOKENS[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, 11))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(TOKENS), atol=1e-12, rtol=0)


@EVERY_KIND
@torch.no_grad()
def test_rows_padded_on_the_left_equal_themselves_alone(kind):
    model = build(**KINDS[kind])
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[0, :3] = False
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = model(TOKENS, positions=positions, attention_mask=mask)
    alone = model(TOKENS[:1, 3:])
    torch.testing.assert_close(padded[:1, 3:], alone, atol=1e-12, rtol=0)


@EVERY_KIND
@torch.no_grad()
def test_no_token_sees_a_later_one(kind):
    model = build(**KINDS[kind])
    logits = model(TOKENS)
    for t in range(11):
        other = TOKENS.clone()
        other[:, t] = (other[:, t] + 1) % 31
        changed = model(other)
        assert torch.equal(changed[:, :t], logits[:, :t])
        assert not torch.equal(changed[:, t:], logits[:, t:])


@torch.no_grad()
def test_hidden_then_logits_is_the_whole_model():
    for tied in (True, False):
        model = build(tied=tied, rotary=Rotary(rotary_frequencies(6)))
        assert torch.equal(model.logits(model.hidden(TOKENS)), model(TOKENS))
        last = model(TOKENS, last_only=True)
        torch.testing.assert_close(last, model(TOKENS)[:, -1:], atol=1e-12, rtol=0)
        assert ("output.weight" in model.state_dict()) is not tied


@torch.no_grad()
def test_scale_and_norm_of_the_embedding_act_in_this_order():
    norm = RMSNorm(12, eps=1e-6)
    model = build(embedding_scale=12**0.5, embedding_norm=norm)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(TOKENS)
    table = model.tokens.weight[TOKENS] * 12**0.5
    torch.testing.assert_close(seen[0], model.embedding_norm(table), atol=1e-12, rtol=0)
    assert (seen[0] - model.embedding_norm(table / 12**0.5)).abs().max() > 1e-9, "eps tells"


def test_a_failing_block_leaves_the_cache_as_it_was():
    model = build(rotary=Rotary(rotary_frequencies(6)))
    cache = ContiguousCache.for_model(model, batch=2)
    model(TOKENS[:, :4], cache=cache)
    model.blocks[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        model(TOKENS[:, 4:6], cache=cache)
    assert [cache[i].length for i in range(2)] == [4, 4]


def test_errors_name_the_value():
    assert isinstance(Config(), CausalConfig)
    with pytest.raises(ValueError, match="2 blocks for n_layers=3"):
        build(Config(n_layers=3))
    model = build()
    for tokens, message in (
        (torch.zeros(1, 17, dtype=torch.long), "17 positions exceed max_seq_len 16"),
        (torch.tensor([[31]]), "token ids"),
    ):
        with pytest.raises(ValueError, match=message):
            model(tokens)
    with pytest.raises(ValueError, match=r"attention_mask must be \(2, 11\)"):
        model(TOKENS, attention_mask=torch.ones(2, 10, dtype=torch.bool))
