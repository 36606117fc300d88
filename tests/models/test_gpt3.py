"""GPT-3's and GPT-Neo's layers in turn: which band where, sizes, causality, what a band forgets."""

import pytest
import torch

from minillm.generation import ContiguousCache
from minillm.models.gpt import GPT, GPT2_FORMAT
from minillm.models.gpt3 import GPT3_SIZES, GPT_NEO_FORMAT, BandedConfig, gpt3, gpt_neo
from minillm.nn import TORCH_OPS, Ops

SIZES = {"vocab_size": 53, "max_seq_len": 24, "d_model": 12, "n_layers": 3, "n_heads": 3}
BOTH = pytest.mark.parametrize("preset", [gpt3, gpt_neo])


def noisy(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.double().eval()


@pytest.mark.parametrize(
    ("size", "millions"),
    [("125m", 125), ("350m", 356), ("760m", 760), ("1.3b", 1316), ("2.7b", 2652), ("175b", 174604)],
)
def test_sizes_are_near_the_published_ones(size, millions):
    with torch.device("meta"):
        model = gpt3(size)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
    assert model.config.max_seq_len == 2048


def test_every_size_can_be_built():
    with torch.device("meta"):
        assert all(len(gpt3(s).blocks) == GPT3_SIZES[s]["n_layers"] for s in GPT3_SIZES)


@BOTH
def test_reach_is_that_of_the_band_in_odd_layers_only(preset):
    """With the even layers' attention cut off, a token reaches exactly the window's tokens."""
    model = noisy(preset(**SIZES, window=4))
    for layer in (0, 2):
        model.blocks[layer].attention.output.weight.data.zero_()
    tokens = torch.randint(53, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(tokens)
        tokens[0, 7] = (tokens[0, 7] + 1) % 53
        changed = (model(tokens) - logits).abs().amax(-1)[0] > 0
    assert changed.nonzero().flatten().tolist() == [7, 8, 9, 10]
    dense = noisy(preset(**SIZES, window=4))
    dense.blocks[1].attention.output.weight.data.zero_()
    with torch.no_grad():
        other = tokens.clone()
        other[0, 7] = (other[0, 7] + 1) % 53
        changed = (dense(tokens) - dense(other)).abs().amax(-1)[0] > 0
    assert changed.nonzero().flatten().tolist() == list(range(7, 20))


@BOTH
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_perturbing_a_token_leaves_all_earlier_logits_bit_equal(preset, ops):
    model = noisy(preset(**SIZES, window=4, ops=ops))
    tokens = torch.randint(53, (2, 19))
    with torch.no_grad():
        logits = model(tokens)
        for t in range(19):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1) % 53
            changed = model(other)
            assert torch.equal(changed[:, :t], logits[:, :t])
            assert not torch.equal(changed[:, t], logits[:, t])


@BOTH
@pytest.mark.parametrize("chunks", [[1] * 13, [9, 1, 3], [2, 11]], ids=str)
def test_cached_in_chunks_equals_one_go(preset, chunks):
    model = noisy(preset(**SIZES, window=4))
    tokens = torch.randint(53, (2, 13))
    cache, parts = ContiguousCache.for_model(model, batch=2), []
    with torch.no_grad():
        for part in tokens.split(chunks, dim=1):
            parts.append(model(part, cache=cache))
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), atol=1e-10, rtol=0)


def test_gpt3_is_gpt2_with_other_attention_in_odd_layers():
    model = noisy(gpt3(**SIZES, window=99))
    plain = GPT(model.config).double().eval()
    plain.load_state_dict(model.state_dict())
    tokens = torch.randint(53, (2, 19))
    torch.testing.assert_close(model(tokens), plain(tokens), atol=1e-10, rtol=0)
    narrow = gpt3(**SIZES, window=4).double().eval()
    narrow.load_state_dict(model.state_dict())
    far = (narrow(tokens) - plain(tokens)).abs().amax((0, 2))
    assert far[:4].max() < 1e-10, "the first four tokens lose nothing"
    assert far[4:].min() > 1e-3


def test_formats():
    assert gpt3(**SIZES).hub_format is None
    assert GPT_NEO_FORMAT.keys.keys() != GPT2_FORMAT.keys.keys()


@pytest.mark.parametrize("preset", [gpt3, gpt_neo])
def test_mistakes_are_explained(preset):
    with pytest.raises(ValueError, match="unknown size 'huge'; choose from 125m"):
        preset("huge")
    with pytest.raises(ValueError, match="window must be"):
        BandedConfig(**SIZES, window=0)


@pytest.mark.parametrize("types", [[[["global"], 4]], [[["local", "global"], 2]], 3, [[1]]])
def test_other_patterns_of_layers_are_refused(types):
    with pytest.raises(ValueError, match="attention_types"):
        GPT_NEO_FORMAT.config["attention_types"].read(types)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_pattern_of_layers_is_read_back(n):
    setting = GPT_NEO_FORMAT.config["attention_types"]
    assert setting.read(setting.write(n)) == n
