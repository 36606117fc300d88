"""`load(name)` from assets, folders, GGUF files and the Hugging Face hub (stood in for)."""

import builtins
import shutil
import sys
import types

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from minillm import assets
from minillm.hub import load, save_gguf, save_pretrained
from minillm.hub.load import FILES
from minillm.models.bert import Bert
from minillm.models.gpt import gpt2
from minillm.models.llama import llama
from minillm.nn import TORCH_OPS
from minillm.tokenizers import BPETokenizer, WordPieceTokenizer

TEXTS = ["a cat sits on the mat", "a kitten lies on a rug", "stocks fell sharply on Monday"]


def test_minilm_is_the_model_that_transformers_loads():
    model, tokenizer = load("minilm-l6", ops=TORCH_OPS)
    assert isinstance(model, Bert) and isinstance(tokenizer, WordPieceTokenizer)
    folder = assets.fetch("minilm-l6")
    theirs, words = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = words(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    for row, text in enumerate(TEXTS):
        ids = tokenizer.encode(text)
        assert batch["input_ids"][row, 1 : 1 + len(ids)].tolist() == ids
    with torch.no_grad():
        expected = theirs(**batch).last_hidden_state[mask]
        found = model(batch["input_ids"], attention_mask=mask)[mask]
    assert (expected - found).abs().max() < 1e-5


@pytest.fixture
def folder(tmp_path):
    """A small GPT-2 beside a tokenizer of one byte a token."""
    made = tmp_path / "model"
    save_pretrained(gpt2(vocab_size=256, max_seq_len=8, d_model=8, n_layers=1, n_heads=2), made)
    BPETokenizer({bytes([i]): i for i in range(256)}, merges=[]).save(made)
    return made


def test_a_folder(folder):
    model, tokenizer = load(folder)
    assert model.config.d_model == 8 and not model.training
    assert tokenizer.encode("hi") == [104, 105]
    assert load(str(folder))[0].config == model.config


def test_a_gguf_file_has_both_inside(tmp_path):
    vocabulary = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["a", "b", "ab", "<end>"],
        "tokenizer.ggml.token_type": [1, 1, 1, 3],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 3,
    }
    model = llama(vocab_size=4, max_seq_len=8, d_model=32, n_layers=1, n_heads=2, d_ff=32)
    save_gguf(model, tmp_path / "m.gguf", metadata=vocabulary)
    again, tokenizer = load(tmp_path / "m.gguf")
    assert again.config.d_ff == 32
    assert tokenizer.encode("abba") == [2, 1, 0] and tokenizer.eos == "<end>"


@pytest.fixture
def hub(monkeypatch, folder):
    """A stand-in for the package `huggingface_hub` that notes how it is called."""
    calls = []

    def snapshot_download(name, *, revision, allow_patterns):
        calls.append((name, revision, allow_patterns))
        if name == "nobody/nothing":
            raise OSError("cannot reach the host\nand a long story")
        return str(folder)

    package = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    return calls


def test_a_name_on_the_hub(hub):
    model, tokenizer = load("someone/small-gpt2", revision="v1")
    assert model.config.d_model == 8 and tokenizer.vocab_size == 256
    assert hub == [("someone/small-gpt2", "v1", FILES)]
    assert not any(name.endswith((".bin", ".pt", ".pth", ".py", ".pkl", "*")) for name in FILES)


def test_what_the_hub_says_is_handed_on(hub):
    with pytest.raises(ValueError, match=r"'nobody/nothing' .* from the Hugging Face hub: cannot"):
        load("nobody/nothing")


def test_without_the_hubs_package(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        load("someone/small-gpt2")


@pytest.mark.parametrize("name", ["nothing", "", "./a/b", "../a", "a/b/c", "/a", "a/", "~/a"])
def test_names_that_are_none_reach_no_network(name, hub):
    with pytest.raises(ValueError, match=r"there is no model .*: give one of minilm-l6, smollm2"):
        load(name)
    assert hub == []


def test_a_folder_without_a_tokenizer(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has none of"):
        load(tmp_path / "bare")
