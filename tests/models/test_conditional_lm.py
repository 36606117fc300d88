"""The encoder-decoder of ready-made parts; its families against transformers: tests/parity."""

import pytest
import torch

from minillm.generation import ContiguousCache, generate
from minillm.models.bart import bart
from minillm.models.conditional_lm import ConditionalLM, Conditioned, Stack
from minillm.models.encdec import EncDecConfig, EncoderDecoder
from minillm.models.t5 import t5, t5_1_1
from minillm.nn.modes import evaluation_mode

SIZES = {"vocab_size": 31, "max_seq_len": 20, "d_model": 12, "n_layers": 2, "n_heads": 3,
         "d_ff": 20, "dropout": 0.0}  # fmt: skip
BUILD = {
    "t5": lambda **o: t5(**{**SIZES, "d_head": 5, **o}),
    "t5 1.1": lambda **o: t5_1_1(**{**SIZES, "d_head": 5, **o}),
    "bart": lambda **o: bart(**{**SIZES, **o}),
    "2017": lambda **o: EncoderDecoder(EncDecConfig(**{**SIZES, **o})),
}
KINDS = list(BUILD)


def build(kind, **options):
    torch.manual_seed(0)
    model = BUILD[kind](**options).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_causal_to_the_bit_and_blind_to_padding(kind):
    model = build(kind)
    source, target = torch.randint(31, (2, 7)), torch.randint(31, (2, 6))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    with torch.no_grad():
        before = model(source, target, source_mask=mask)
        later, padded, seen = target.clone(), source.clone(), source.clone()
        later[:, 4] = (later[:, 4] + 1) % 31
        padded[1, 4:] = (padded[1, 4:] + 1) % 31
        seen[0, 6] = (seen[0, 6] + 1) % 31
        after = model(source, later, source_mask=mask)
        assert torch.equal(before[:, :4], after[:, :4])
        assert not torch.allclose(before[:, 4], after[:, 4])
        assert torch.equal(model(padded, target, source_mask=mask), before)
        changed = model(seen, target, source_mask=mask)
    assert (changed[0] != before[0]).any(-1).all(), "the source's end reaches every target token"
    assert torch.equal(changed[1], before[1])


@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_uncached_also_behind_left_padding(kind):
    model = build(kind)
    source, target = torch.randint(31, (2, 7)), torch.randint(31, (2, 6))
    kept = torch.ones(2, 6, dtype=torch.bool)
    kept[1, :2] = False
    with torch.no_grad():
        memory = model.remember(model.encode(source))
        whole = model.decode(target, memory, target_mask=kept)
        cache = ContiguousCache.for_model(model, 2, 6)
        steps = [
            model.decode(target[:, i : i + 1], memory, cache=cache, target_mask=kept[:, : i + 1])
            for i in range(6)
        ]
    torch.testing.assert_close(torch.cat(steps, dim=1)[kept], whole[kept], atol=1e-12, rtol=0)
    assert torch.equal(model(source, target, target_mask=kept).detach(), whole)


def test_relative_positions_make_left_padding_of_a_target_harmless():
    """In T5 only distances count: the same text behind padding has the same logits."""
    model = build("t5")
    source, target = torch.randint(31, (1, 7)), torch.randint(1, 31, (1, 4))
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), target], dim=1)
    kept = torch.arange(7)[None] >= 3
    with torch.no_grad():
        alone = model(source, target)
        behind = model(source, padded, target_mask=kept)[:, 3:]
    torch.testing.assert_close(alone, behind, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_writes_with_the_loop_and_a_beam_sees_the_same_source(kind):
    model = build(kind)
    source = torch.randint(31, (2, 5))
    with torch.no_grad():
        decoder = Conditioned(model, model.remember(model.encode(source)))
        start = torch.zeros(2, 1, dtype=torch.long)
        cached = generate(decoder, start, max_new_tokens=8)
        plain = generate(decoder, start, max_new_tokens=8, cache=None)
        double = decoder.repeat(2)(start.repeat_interleave(2, 0))
    assert torch.equal(cached, plain)
    torch.testing.assert_close(double[::2], decoder(start), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_in_training_only(kind):
    model = build(kind, dropout=0.3).train()
    ids = torch.tensor([[3, 4, 5]])
    assert not torch.equal(model(ids, ids), model(ids, ids))
    with evaluation_mode(model):
        assert torch.equal(model(ids, ids), model(ids, ids))


def test_tables_are_shared_where_they_should_be():
    tables = {k: [n for n, p in build(k).named_parameters() if p.shape == (31, 12)] for k in KINDS}
    assert tables == {
        "t5": ["tokens.weight"],
        "t5 1.1": ["tokens.weight", "output.weight"],
        "bart": ["tokens.weight"],
        "2017": ["tokens.weight"],
    }
    assert build("2017").decoder_positions is None, "one module of positions serves both sides"
    assert build("bart").decoder_positions is not build("bart").positions


def test_number_of_blocks_is_checked():
    config = EncDecConfig(**SIZES)
    model = build("2017")
    right, short = Stack(model.encoder), Stack(list(model.decoder)[:1])
    with pytest.raises(ValueError, match="1 decoder blocks for n_layers=2"):
        ConditionalLM(config, right, short)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(torch.zeros(1, 21).long()), "21 positions exceed max_seq_len 20"),
        (lambda m: m.encode(torch.zeros(1, 0).long()), "length ≥ 1"),
        (lambda m: m.encode(torch.tensor([[31]])), r"must lie in 0 … 30"),
        (
            lambda m: m.decode(
                torch.zeros(1, 2).long(),
                m.remember(m.encode(torch.zeros(1, 3).long())),
                target_mask=torch.ones(1, 3).bool(),
            ),
            r"target_mask \(1, 3\) must match \(1, 2\)",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(build("t5"))
