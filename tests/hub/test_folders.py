import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from minillm.hub import folders, load_pretrained, save_pretrained
from minillm.models.gpt import gpt1, gpt2
from minillm.nn import TORCH_OPS

SIZES = {"vocab_size": 13, "max_seq_len": 7, "d_model": 6, "n_layers": 2, "n_heads": 2}


@pytest.fixture(params=[gpt1, gpt2])
def saved(request, tmp_path):
    torch.manual_seed(0)
    model = request.param(**SIZES, norm_eps=1e-4, dropout=0.2)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    save_pretrained(model, tmp_path / "new" / "folder")
    return model, tmp_path / "new" / "folder"


def test_round_trip(saved):
    model, folder = saved
    loaded = load_pretrained(folder, ops=TORCH_OPS)
    assert loaded.config == model.config
    assert not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True)
    )
    assert loaded.hub_format is model.hub_format


def test_transformers_reads_what_we_write_and_we_read_what_it_writes(saved, tmp_path):
    model, folder = saved
    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = torch.randint(13, (2, 7))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model.eval()(tokens))
    theirs.save_pretrained(tmp_path / "back")
    again = load_pretrained(tmp_path / "back")
    assert again.config == model.config
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)
    )
    assert AutoConfig.from_pretrained(folder).layer_norm_epsilon == 1e-4


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "elmo"}, "model_type 'elmo' is not known here; known: .*gpt2"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ({"attn_pdrop": 0.1}, "attn_pdrop=0.1 differs from 0.2"),
        ({"n_embd": 8}, "has shape"),
        ({"n_head": 4}, "d_model 6 is not divisible by n_heads 4"),
        ({"n_layer": 0}, r"config\.json.* n_layer=0 is not a whole number, at least 1"),
        ({"n_layer": 10**7}, "n_layer=10000000, but the tensors are those of 2 layers"),
        ({"n_layer": None}, "n_layer=None is not a whole number"),
        ({"n_layer": True}, "n_layer=True is not a whole number"),
        ({"vocab_size": 10**11}, r"model\.safetensors: .* \(13, 6\).*\(100000000000, 6\)"),
        ({"vocab_size": 10**30}, "describe no model"),
        ({"n_embd": "8"}, "n_embd='8' is not a whole number"),
        ({"n_embd": 6.0}, r"n_embd=6\.0 is not a whole number"),
        ({"model_type": []}, r"model_type \[\] is not known here"),
        ({"layer_norm_epsilon": "x"}, "layer_norm_epsilon='x' is not a finite number"),
        ({"layer_norm_epsilon": -1}, "layer_norm_epsilon=-1 is not a finite number"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon=nan is not a finite"),
        ({"layer_norm_epsilon": 10**400}, "layer_norm_epsilon=10*.* is not a finite"),
        ({"resid_pdrop": "a"}, "resid_pdrop='a' is not a finite number"),
        ({"resid_pdrop": 1, "embd_pdrop": 1, "attn_pdrop": 1}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_unsupported_or_inconsistent_settings(saved, changes, message, monkeypatch):
    _, folder = saved
    edit(folder, **changes)
    monkeypatch.setattr(folders, "filled", None)  # a model was built: too late
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize("width", [-1, 0, "x", 24.0, True, []])
def test_widths_that_are_none(tmp_path, width):
    save_pretrained(gpt2(**SIZES), tmp_path)
    edit(tmp_path, n_inner=width)
    with pytest.raises(ValueError, match=rf"n_inner={re.escape(repr(width))} is not a whole"):
        load_pretrained(tmp_path)
    edit(tmp_path, n_inner=None)
    assert load_pretrained(tmp_path).config.d_ff == 24


NAME = "transformer.h.1.mlp.c_fc.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.index_fill(0, torch.tensor([2]), math.nan), f"{NAME} holds 24 times nan"),
        (lambda t: t * math.inf, f"{NAME} holds .* times -?inf"),
        (lambda t: t.double() * 1e300, "not finite in torch.float32"),
        (lambda t: t.long(), f"{NAME} is torch.int64; weights are floating-point"),
        (lambda t: t > 0, f"{NAME} is torch.bool; weights are floating-point"),
        (lambda t: t[:, 1:].contiguous(), f"{NAME} has shape"),
    ],
)
def test_weights_that_are_no_weights(saved, change, message):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    tensors[NAME] = change(tensors[NAME])
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
        load_pretrained(folder)


def test_half_precision_files_and_obsolete_masks_load(saved):
    model, folder = saved
    tensors = {k: t.half() for k, t in load_file(folder / "model.safetensors").items()}
    tensors["transformer.h.0.attn.bias"] = torch.ones(7, 7, dtype=torch.bool)
    save_file(tensors, folder / "model.safetensors")
    loaded = load_pretrained(folder).tokens.weight
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, model.tokens.weight.half().float())


def full_disk(*_, **__):
    raise OSError("No space left on device")


def half_written(tensors, path):
    path.write_bytes(b"half")
    full_disk()


@pytest.mark.parametrize(
    ("owner", "name", "fails"),
    [(folders, "write_shard", half_written), (folders.Path, "write_text", full_disk),
     (folders.os, "replace", full_disk)],
)  # fmt: skip
def test_a_save_that_fails_leaves_the_old_checkpoint(saved, monkeypatch, owner, name, fails):
    model, folder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(gpt2(**SIZES | {"d_model": 8}), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert torch.equal(load_pretrained(folder).tokens.weight, model.tokens.weight)


def test_a_model_that_is_not_finite_is_not_written(saved):
    model, folder = saved
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.tokens.weight[3, 1] = math.inf
    with pytest.raises(ValueError, match="holds 1 times inf"):
        save_pretrained(model, folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_gpt2_variants_that_compute_something_else_are_refused(tmp_path):
    save_pretrained(gpt2(**SIZES), tmp_path)
    edit(tmp_path, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx=True"):
        load_pretrained(tmp_path)
    edit(tmp_path, scale_attn_by_inverse_layer_idx=False, activation_function="relu")
    with pytest.raises(ValueError, match="activation_function='relu'"):
        load_pretrained(tmp_path)


def test_missing_and_broken_files(saved, tmp_path):
    _, folder = saved
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        load_pretrained(tmp_path / "nowhere")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a usable safetensors"):
        load_pretrained(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load_pretrained(folder)


@pytest.mark.parametrize("text", ["[1, 2]", "{", '"gpt2"'])
def test_a_config_that_is_not_one(saved, text):
    _, folder = saved
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"is not JSON|not an object"):
        load_pretrained(folder)


def test_a_width_that_the_format_cannot_express(tmp_path):
    with pytest.raises(ValueError, match="d_ff 31 cannot be exported"):
        save_pretrained(gpt1(**SIZES, d_ff=31), tmp_path)
    assert not list(tmp_path.iterdir())
