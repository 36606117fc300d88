"""GLM: nobody sees what it may not see, whatever the order of the spans; sizes; bad input."""

from functools import partial

import pytest
import torch

from minillm.data.blank_infilling import BlankTokens, blank_out, collate
from minillm.generation.cache import ContiguousCache
from minillm.models.glm import GLM, GLMConfig, blank_loss, glm, glm_130b
from minillm.nn.blocks import PreNormBlock
from minillm.training import adamw, train

SMALL = {"vocab_size": 40, "max_seq_len": 40, "d_model": 24, "n_layers": 2, "n_heads": 3}
SPECIAL = BlankTokens(mask=37, start=38, end=39)
PRESETS = {"glm": partial(glm, **SMALL, d_ff=28), "130b": partial(glm_130b, **SMALL, d_ff=28)}


@pytest.fixture(params=PRESETS)
def model(request):
    torch.manual_seed(0)
    model = PRESETS[request.param]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def example(order=(0, 1, 2)):
    text = torch.arange(2, 22)
    return blank_out(text, [(1, 4), (7, 8), (12, 17)], SPECIAL, order=list(order))


def logits(model, tokens, one):
    positions = one.positions[None] if model.positions is not None else one.positions[None, 0]
    context = torch.tensor([one.context])
    with torch.no_grad():
        return model(tokens[None], context=context, positions=positions)[0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_no_token_of_part_b_reaches_part_a_or_what_stands_before_it(model, order):
    one = example(order)
    before = logits(model, one.tokens, one)
    for place in range(one.context, len(one.tokens)):
        tokens = one.tokens.clone()
        tokens[place] = (tokens[place] + 5) % 37
        after = logits(model, tokens, one)
        assert torch.equal(before[:place], after[:place]), f"place {place} is seen by others"
        assert all(
            not torch.equal(a, b) for a, b in zip(before[place:], after[place:], strict=True)
        )


def test_every_token_of_part_a_reaches_every_token(model):
    one = example()
    before = logits(model, one.tokens, one)
    for place in range(one.context):
        tokens = one.tokens.clone()
        tokens[place] = (tokens[place] + 5) % 37
        after = logits(model, tokens, one)
        changed = (before != after).any(dim=-1)
        assert changed.all(), f"place {place} is not seen by {(~changed).nonzero().tolist()}"


def test_the_leak_is_noticed_where_there_is_one(model):
    """The test above is worth something: a mask one token too wide fails it."""
    one = example()
    wide = one.context + 1
    positions = one.positions[None] if model.positions is not None else one.positions[None, 0]

    def leaky(tokens):
        with torch.no_grad():
            return model(tokens[None], context=torch.tensor([wide]), positions=positions)[0]

    tokens = one.tokens.clone()
    tokens[one.context] = 3
    assert not torch.equal(leaky(one.tokens)[: one.context], leaky(tokens)[: one.context])


def test_the_text_alone_does_not_tell_how_long_a_span_is():
    """Part A and its positions are the same for a span of one token and of five."""
    text = list(range(2, 14))
    short = blank_out(text, [(3, 4)], SPECIAL)
    long = blank_out([*text[:3], 30, 31, 32, 33, 34, *text[4:]], [(3, 8)], SPECIAL)
    n = short.context
    assert n == long.context
    assert torch.equal(short.tokens[:n], long.tokens[:n])
    assert torch.equal(short.positions[:, :n], long.positions[:, :n])
    assert torch.equal(short.positions[:, n : n + 2], long.positions[:, n : n + 2])


def test_padding_on_the_right_changes_nothing():
    torch.manual_seed(0)
    model = PRESETS["glm"]().double().eval()
    rows = [example(), blank_out(list(range(5, 12)), [(2, 4)], SPECIAL)]
    together = collate(rows)
    with torch.no_grad():
        both = model(
            together["tokens"], context=together["context"], positions=together["positions"]
        )
    for row, one in zip(both, rows, strict=True):
        alone = logits(model, one.tokens, one)
        assert (row[: len(alone)] - alone).abs().max() < 1e-12


def test_loss_counts_part_b_only_and_trains():
    torch.manual_seed(0)
    model = PRESETS["glm"]()
    batch = collate([example((2, 1, 0))])
    summed, count = blank_loss(model, batch)
    assert count == 9 + 3  # nine tokens in three spans, three end tokens
    steps = list(
        train(model, [batch] * 25, optimizer=adamw(model, 2e-2), steps=25, loss_fn=blank_loss)
    )
    assert abs(steps[0].loss - summed.item() / count) < 1e-5
    assert steps[-1].loss < 0.3 * steps[0].loss


def test_shuffled_spans_are_the_same_sum_of_log_probabilities_only_in_the_same_order(model):
    """The order is part of the factorization: another order gives another number."""
    sums = []
    for order in ((0, 1, 2), (2, 0, 1)):
        one = example(order)
        z = logits(model, one.tokens, one).log_softmax(-1)
        b = slice(one.context, None)
        sums.append(z[b].gather(-1, one.targets[b, None]).sum())
    assert abs(sums[0] - sums[1]) > 1e-3


@pytest.mark.parametrize(
    ("size", "millions"), [("base", 110), ("large", 335), ("515m", 515), ("10b", 9_880)]
)
def test_published_numbers_of_parameters(size, millions):
    with torch.device("meta"):
        n = sum(p.numel() for p in glm(size).parameters())
    assert abs(n / 1e6 / millions - 1) < 0.01


def test_glm_130b_has_130_billion_parameters():
    with torch.device("meta"):
        n = sum(p.numel() for p in glm_130b().parameters())
    assert abs(n / 1e9 - 130) < 1.5


def test_glm_130b_starts_as_published():
    model = glm_130b(**SMALL | {"d_model": 96, "n_layers": 8}, d_ff=128)
    assert all(block.alpha == 4.0 for block in model.blocks)  # (2 · 8)^½
    beta = 16**-0.5
    xavier = (2 / (96 + 96)) ** 0.5
    attention = model.blocks[0].attention
    for layer, gain in ((attention.query, 1), (attention.value, beta), (attention.output, beta)):
        assert abs(layer.weight.std() / (gain * xavier) - 1) < 0.1
        assert not layer.bias.any()


def test_glm_scales_what_writes_to_the_stream():
    model = glm(**SMALL | {"d_model": 96, "n_layers": 8})
    for layer, std in ((model.blocks[3].ffn.down, 0.005), (model.blocks[3].ffn.up, 0.02)):
        assert abs(layer.weight.std() / std - 1) < 0.1
    assert abs(model.positions.block.weight.std() / 0.02 - 1) < 0.1


def test_without_context_and_positions_it_is_a_causal_model(model):
    tokens = torch.arange(3, 12)[None]
    with torch.no_grad():
        before, after = model(tokens), model(tokens.index_fill(1, torch.tensor([6]), 20))
        last = model(tokens, last_only=True)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])
    assert torch.equal(before[:, -1:], last)


def test_bad_input_is_named(model):
    tokens = torch.arange(3, 12)[None]
    with pytest.raises(ValueError, match="tokens must have shape"):
        model(tokens[:, :0])
    with pytest.raises(ValueError, match="max_seq_len 40"):
        model(tokens.repeat(1, 5))
    cache = ContiguousCache.for_model(model, 1)
    model(tokens, context=torch.tensor([9]), cache=cache)
    with pytest.raises(ValueError, match="one pass"):
        model(tokens[:, :1], context=torch.tensor([1]), cache=cache)
    with pytest.raises(ValueError, match="token ids must lie"):
        model(tokens + 99, cache=cache)
    assert cache.length == 9  # as before the pass that failed


def test_bad_configs_are_named():
    for numbers in ({"n_heads": 5}, {"d_model": 0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match=next(iter(numbers))):
            GLMConfig(**{**SMALL, "d_ff": 8, **numbers})
    with pytest.raises(ValueError, match="unknown size"):
        glm("huge")


def test_blocks_and_norms_are_those_of_each_paper():
    small, big = PRESETS["glm"](), PRESETS["130b"]()
    assert isinstance(small, GLM)
    assert isinstance(big, GLM)
    assert isinstance(small.blocks[0], PreNormBlock)
    assert small.positions is not None
    assert big.positions is None
    assert big.blocks[0].attention.rotary is not None
