import math

import pytest
import torch
from torch import nn

from minillm.accounting import gpt_parameters
from minillm.models.gpt import GPT, GPTConfig, gpt1, gpt2, gpt_mini, gpt_tiny
from minillm.nn import TORCH_OPS, Ops, PostNormBlock, PreNormBlock

SIZES = {"vocab_size": 53, "max_seq_len": 19, "d_model": 12, "n_layers": 2, "n_heads": 3}
OPS = pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
PRESETS = pytest.mark.parametrize("preset", [gpt1, gpt2])


def noisy(model, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model


class CatCache:
    class Layer:
        def __init__(self):
            self.k = self.v = None

        def append(self, k, v):
            self.k = k if self.k is None else torch.cat([self.k, k], dim=2)
            self.v = v if self.v is None else torch.cat([self.v, v], dim=2)
            return self.k, self.v

    def __init__(self, n_layers):
        self.layers = [self.Layer() for _ in range(n_layers)]

    @property
    def length(self):
        return 0 if self.layers[-1].k is None else self.layers[-1].k.shape[2]

    def __getitem__(self, i):
        return self.layers[i]


@PRESETS
@OPS
def test_perturbing_a_token_leaves_all_earlier_logits_bit_equal(preset, ops):
    model = noisy(preset(**SIZES, ops=ops))
    tokens = torch.randint(53, (2, 19))
    with torch.no_grad():
        logits = model(tokens)
        for t in range(19):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1) % 53
            changed = model(other)
            assert torch.equal(changed[:, :t], logits[:, :t])
            assert not torch.equal(changed[:, t], logits[:, t])


@PRESETS
@OPS
def test_last_only_and_cache_equal_the_full_pass(preset, ops):
    model = noisy(preset(**SIZES, ops=ops).double())
    tokens = torch.randint(53, (2, 11))
    with torch.no_grad():
        full = model(tokens)
        torch.testing.assert_close(model(tokens, last_only=True), full[:, -1:], atol=1e-10, rtol=0)
        cache = CatCache(2)
        for t in range(11):
            step = model(tokens[:, t : t + 1], cache=cache, last_only=True)
            torch.testing.assert_close(step[:, 0], full[:, t], atol=1e-10, rtol=0)


@PRESETS
def test_a_row_does_not_depend_on_its_neighbors_or_padding(preset):
    model = noisy(preset(**SIZES).double())
    tokens = torch.randint(53, (3, 9))
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :4] = False
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        batch = model(tokens, attention_mask=mask, positions=positions)
        alone = model(tokens[1:2, 4:])
        torch.testing.assert_close(batch[1:2, 4:], alone, atol=1e-10, rtol=0)
        tokens[1, :4] = 0
        again = model(tokens, attention_mask=mask, positions=positions)
        assert torch.equal(again[1, 4:], batch[1, 4:])
        forgotten = model(tokens, attention_mask=mask)
        assert (forgotten[1, 4:] - alone[0]).abs().max() > 1e-2, "positions matter"


def test_residual_writers_start_smaller_by_the_root_of_twice_the_depth():
    torch.manual_seed(0)
    model = gpt2(vocab_size=11, max_seq_len=7, d_model=192, n_layers=8, n_heads=4)
    expected = {"output": 0.02 / 4, "down": 0.02 / 4, "query": 0.02, "value": 0.02, "up": 0.02}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            std = expected.get(name.rsplit(".")[-1], 0.02)
            assert module.weight.std().item() == pytest.approx(std, rel=0.05), name
            assert (module.bias == 0).all()
    older = gpt1(vocab_size=11, max_seq_len=7, d_model=192, n_layers=8, n_heads=4)
    for block in older.blocks:
        assert block.attention.output.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_the_residual_stream_keeps_its_size_at_any_depth():
    """What the scaled initialization is for: without it the updates add up with depth."""

    def growth(depth, scaled):
        torch.manual_seed(0)
        numbers = SIZES | {"d_model": 48, "n_layers": depth}
        model = gpt2(**numbers)
        if not scaled:
            for block in model.blocks:
                block.attention.output.weight.data *= math.sqrt(2 * depth)
                block.ffn.down.weight.data *= math.sqrt(2 * depth)
        sizes = []
        model.final_norm.register_forward_pre_hook(lambda m, x: sizes.append(x[0].std().item()))
        with torch.no_grad():
            model(torch.randint(53, (4, 19)))
        return sizes[0]

    assert growth(32, True) < 1.5 * growth(2, True)
    assert growth(32, False) > 2 * growth(2, False)


def test_at_initialization_the_loss_is_that_of_a_uniform_guess():
    torch.manual_seed(0)
    model, ops = gpt_tiny(1000), Ops()
    tokens = torch.randint(1000, (8, 65))
    loss = ops.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(1000), abs=0.1)


def test_presets_compose_the_right_parts():
    first, second = gpt1(**SIZES), gpt2(**SIZES)
    assert isinstance(first.blocks[0], PostNormBlock)
    assert isinstance(first.final_norm, nn.Identity)
    assert isinstance(second.blocks[0], PreNormBlock)
    assert (gpt1.__name__, first.config.d_ff) == ("gpt1", 48)
    assert second.config.n_kv_heads == 3
    assert second.config.d_head == 4
    config = GPTConfig(vocab_size=50257, max_seq_len=1024, d_model=768, n_layers=12, n_heads=12)
    with torch.device("meta"):
        assert gpt2().config == config
        assert gpt1().config.vocab_size == 40478
        assert gpt2("xl").config.n_layers == 48


@pytest.mark.parametrize("make", [gpt_tiny, gpt_mini])
def test_small_sizes_are_what_their_docstrings_say(make):
    with torch.device("meta"):
        model = make(1000)
    c = model.config
    count = gpt_parameters(c.vocab_size, c.max_seq_len, c.d_model, c.n_layers)
    rest = sum(p.numel() for p in model.parameters()) - count.tokens
    assert f"{rest / 1e6:.1f}M" in make.__doc__


def test_dropout_is_off_in_evaluation_and_on_in_training():
    model = gpt2(**SIZES, dropout=0.5)
    tokens = torch.randint(53, (2, 5))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_forward_keeps_no_state_and_changes_no_argument():
    model = noisy(gpt2(**SIZES))
    tokens = torch.randint(53, (2, 5))
    mask = torch.ones(2, 5, dtype=torch.bool)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    a = model(tokens, attention_mask=mask)
    model(torch.randint(53, (1, 19)))
    assert torch.equal(a, model(tokens, attention_mask=mask))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert mask.all()


def test_a_block_of_ones_own_can_be_handed_in():
    class Silent(nn.Module):
        def __init__(self, attention, ffn, attention_norm, ffn_norm, *, dropout):
            super().__init__()
            self.attention, self.ffn = attention, ffn

        def forward(self, x, *, mask, causal, positions, cache):
            return x

    model = GPT(GPTConfig(**SIZES), block=Silent)
    tokens = torch.randint(53, (1, 4))
    expected = model.final_norm(model.tokens(tokens) + model.positions.weight[:4])
    torch.testing.assert_close(model(tokens), expected @ model.tokens.weight.T)


@PRESETS
def test_the_rate_of_dropout_reaches_vectors_weights_and_updates(preset):
    model = preset(**{**SIZES, "d_model": 48}, dropout=0.25)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    model(torch.randint(53, (8, 19)))
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert [block.attention.dropout for block in model.blocks] == [0.25, 0.25]
    assert [block.dropout.p for block in model.blocks] == [0.25, 0.25]
