import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from minillm.hub import load_pretrained, save_pretrained
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
        ({"model_type": "llama"}, "model_type 'llama' is not known here; known: openai-gpt, gpt2"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ({"attn_pdrop": 0.1}, "attn_pdrop=0.1 differs from 0.2"),
        ({"n_embd": 8}, "has shape"),
        ({"n_head": 4}, "d_model 6 is not divisible by n_heads 4"),
        ({"n_layer": 0}, "n_layers must be a whole number, at least 1, got 0"),
    ],
)
def test_unsupported_or_inconsistent_settings(saved, changes, message):
    _, folder = saved
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


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
    with pytest.raises(ValueError, match=r"is not JSON|is not known here"):
        load_pretrained(folder)


def test_a_width_that_the_format_cannot_express(tmp_path):
    with pytest.raises(ValueError, match="d_ff 31 cannot be exported"):
        save_pretrained(gpt1(**SIZES, d_ff=31), tmp_path)
    assert not list(tmp_path.iterdir())
