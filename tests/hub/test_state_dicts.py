from types import SimpleNamespace

import pytest
import torch
from torch import nn

from minillm.hub import load_hf, save_pretrained, to_hf
from minillm.models.gpt import gpt1, gpt2
from minillm.models.gpt3 import gpt3
from minillm.models.hub_format import HubFormat, Layout

SIZES = {"vocab_size": 13, "max_seq_len": 7, "d_model": 6, "n_layers": 2, "n_heads": 2}


def model(preset=gpt2, **changes):
    torch.manual_seed(1)
    made = preset(**(SIZES | changes))
    with torch.no_grad():
        for p in made.parameters():
            p.normal_()
    return made


def test_every_tensor_is_read_once_and_written_once():
    class Counting(dict):
        reads = ()

        def __getitem__(self, key):
            self.reads += (key,)
            return super().__getitem__(key)

    for preset in (gpt1, gpt2):
        source = to_hf(model(preset))
        fresh = preset(**SIZES)
        load_hf(fresh, source)
        back = to_hf(fresh)
        assert back.keys() == source.keys()
        for name in source:
            assert torch.equal(back[name], source[name]), name
            assert back[name].is_contiguous()
            # each value counts: change one number of theirs, and ours changes
            nudged = {k: v.clone() for k, v in source.items()}
            nudged[name].view(-1)[-1] += 1
            if name == "lm_head.weight" or name.endswith(("wte.weight", "tokens_embed.weight")):
                with pytest.raises(ValueError, match="this model ties them"):
                    load_hf(fresh, nudged)
                continue
            load_hf(fresh, nudged)
            again = to_hf(fresh)
            changed = {k for k in again if not torch.equal(again[k], source[k])}
            assert changed == {name}


def test_orientation_of_conv1d():
    source = model()
    exported = to_hf(source)
    block = source.blocks[1]
    fused = exported["transformer.h.1.attn.c_attn.weight"]
    assert torch.equal(fused[:, 6:12], block.attention.key.weight.T)
    assert torch.equal(exported["transformer.h.1.mlp.c_fc.weight"][0], block.ffn.up.weight[:, 0])


def test_copies_share_no_memory():
    source = model()
    exported = to_hf(source)
    kept = source.tokens.weight.clone()
    exported["transformer.wte.weight"].zero_()
    exported["transformer.ln_f.bias"].zero_()
    assert torch.equal(source.tokens.weight, kept)
    assert not (source.final_norm.bias == 0).any()
    incoming = to_hf(model())
    load_hf(source, incoming)
    incoming["transformer.ln_f.bias"].zero_()
    assert not (source.final_norm.bias == 0).any()


def test_files_of_the_bare_model_with_old_buffers_and_without_the_tied_head():
    source = model()
    old = {k.removeprefix("transformer."): v for k, v in to_hf(source).items()}
    del old["lm_head.weight"]
    for i in range(2):
        old[f"h.{i}.attn.bias"] = torch.ones(1, 1, 7, 7)
        old[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    fresh = gpt2(**SIZES)
    load_hf(fresh, old)
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.parameters(), source.parameters(), strict=True)
    )


def test_half_precision_files_are_widened():
    half = {k: v.bfloat16() for k, v in to_hf(model()).items()}
    fresh = gpt2(**SIZES)
    load_hf(fresh, half)
    assert fresh.tokens.weight.dtype == torch.float32
    assert torch.equal(fresh.tokens.weight, half["transformer.wte.weight"].float())


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: d.pop("transformer.ln_f.bias"), "missing transformer.ln_f.bias; unknown none"),
        (lambda d: d.update({"transformer.extra": torch.ones(1)}), "unknown transformer.extra"),
        (
            lambda d: d.update({"transformer.wpe.weight": torch.ones(8, 6)}),
            r"transformer.wpe.weight has shape \(8, 6\).*positions.weight \(7, 6\)",
        ),
        (
            lambda d: d.update({"transformer.h.0.attn.c_attn.weight": torch.ones(18, 6)}),
            r"c_attn.weight has shape \(18, 6\)",
        ),
        (lambda d: d["transformer.ln_f.bias"].fill_(torch.nan), "ln_f.bias holds 6 times nan"),
        (
            lambda d: d.update({"transformer.ln_f.bias": torch.ones(6).long()}),
            "ln_f.bias is torch.int64; weights are floating-point",
        ),
    ],
)
def test_errors_name_the_tensor_and_leave_the_model_alone(break_it, message):
    state = to_hf(model())
    break_it(state)
    fresh = gpt2(**SIZES)
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_hf(fresh, state)
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())


def test_other_depths_and_other_families_are_refused():
    with pytest.raises(
        ValueError, match=r"unknown transformer\.h\.1\.attn\.c_attn\.bias.* and 8 more"
    ):
        load_hf(gpt2(**SIZES | {"n_layers": 1}), to_hf(model()))
    with pytest.raises(ValueError, match="not a OpenAIGPTLMHeadModel"):
        load_hf(gpt1(**SIZES), to_hf(model(gpt2)))


class Interleaved:
    """Rows of two tensors in turn: a layout that is not side by side."""

    def split(self, tensor, config):
        return tensor[0::2], tensor[1::2]

    def join(self, parts, config):
        return torch.stack(parts, dim=1).flatten(0, 1)


def test_a_layout_of_ones_own_splits_and_joins():
    assert isinstance(Interleaved(), Layout)
    model = nn.Module()
    model.first, model.second = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    model.config = SimpleNamespace(n_layers=1)
    model.hub_format = HubFormat(
        keys={"both.weight": ("first.weight", "second.weight")},
        layouts={"both.weight": Interleaved()},
        config={},
        fixed={"architectures": ["Pair"]},
    )
    theirs = torch.randn(8, 3)
    load_hf(model, {"both.weight": theirs})
    assert torch.equal(model.first.weight, theirs[0::2])
    assert torch.equal(to_hf(model)["both.weight"], theirs)
    with pytest.raises(ValueError, match="does not fit"):
        load_hf(model, {"both.weight": theirs[:6]})


def test_a_model_without_a_counterpart_in_transformers_says_so(tmp_path):
    sizes = {"d_model": 8, "n_layers": 2, "n_heads": 2, "vocab_size": 11, "max_seq_len": 8}
    model = gpt3("125m", **sizes)
    calls = (
        lambda: to_hf(model),
        lambda: load_hf(model, {}),
        lambda: save_pretrained(model, tmp_path / "folder"),
    )
    for call in calls:
        with pytest.raises(ValueError, match="no counterpart in transformers"):
            call()
    assert not (tmp_path / "folder").exists()
