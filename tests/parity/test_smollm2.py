"""SmolLM2-135M-Instruct out of its GGUF file, against transformers' own loading of that file."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from minillm import assets
from minillm.generation import ContiguousCache
from minillm.hub import GgufFile, load, to_hf
from minillm.nn import TORCH_OPS

PROMPTS = [
    "The capital of France is the city of Paris, which",
    "Once upon a time there was a little girl who lived",
    "def fibonacci(n):\n    if n < 2:\n        return",
    "Water boils at a temperature of one hundred degrees when",
    "My favorite book is about a whale and the man who",
    "The three primary colors are red, yellow and blue; they",
    "To be, or not to be, that is the question",
    "In 1969 the first human being walked on the moon",
    "La capitale de l'Espagne est Madrid et celle du",  # codespell:ignore celle
    "Question: How many legs does a spider have? Answer:",
]
LENGTH = 9  # tokens kept of each prompt, so that they make one batch


@pytest.fixture(scope="module")
def theirs():
    path = assets.fetch("smollm2-135m-instruct")
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def ours():
    return load("smollm2-135m-instruct", ops=TORCH_OPS)


@pytest.fixture(scope="module")
def prompts(ours):
    _, tokenizer = ours
    ids = [tokenizer.encode(text) for text in PROMPTS]
    assert min(map(len, ids)) >= LENGTH
    return torch.tensor([row[:LENGTH] for row in ids])


def test_every_weight_is_bit_equal(theirs, ours):
    """Decoded from Q4_1 and Q8_0, queries and keys back from pairs to halves."""
    model, _ = ours
    expected, found = theirs.state_dict(), to_hf(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_logits_are_those_of_transformers(theirs, ours, prompts, record):
    model, _ = ours
    with torch.no_grad():
        expected, found = theirs(prompts).logits, model(prompts)
    error = (expected - found).abs().max()
    record("smollm2-135m-instruct", "LlamaForCausalLM", "logits (float32, from one file)", error)
    assert expected.std() > 2
    assert error < 1e-3


def test_64_greedy_tokens_on_ten_prompts(theirs, ours, prompts):
    model, _ = ours
    expected = theirs.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=64,
        min_new_tokens=64,
        do_sample=False,
    )
    cache = ContiguousCache.for_model(model, batch=len(prompts), max_seq_len=LENGTH + 64)
    tokens = new = prompts
    with torch.no_grad():
        for _ in range(64):
            logits = model(new, cache=cache, last_only=True)[:, -1]
            logits[:, 2] = -torch.inf  # as theirs: no end before 64 new tokens
            new = logits.argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, new], dim=1)
    assert torch.equal(tokens, expected)
    assert len({tuple(row) for row in tokens[:, LENGTH:].tolist()}) == 10


def test_queries_and_keys_left_in_pairs_are_rejected(ours, theirs, prompts):
    """The named mistake of GGUF readers: their rows as they stand in the file."""
    model, _ = ours
    raw, own = GgufFile(assets.fetch("smollm2-135m-instruct")), model.state_dict()
    kept = {}
    for i in range(30):
        for part, name in (("query", "attn_q"), ("key", "attn_k")):
            weight = own[f"blocks.{i}.attention.{part}.weight"]
            kept[i, part] = (weight, weight.clone())
            weight.copy_(raw[f"blk.{i}.{name}.weight"])
    try:
        with torch.no_grad():
            error = (theirs(prompts).logits - model(prompts)).abs().max()
    finally:
        for weight, before in kept.values():
            weight.copy_(before)
    assert error > 1
