"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import numpy as np
import torch
from minillm.generation import *
from minillm.generation import sampling as s
from minillm.generation.sampling import repetition_penalty
from minillm.models.gpt import gpt_tiny
from minillm.tokenizers import ByteTokenizer

model = gpt_tiny(256, max_seq_len=9, d_model=8, n_heads=2, n_layers=1).eval()
ids, cache = torch.tensor([[1, 2], [3, 4]]), ContiguousCache(1, 1, 1, 4, 2)


def run(tokens=ids, max_new_tokens=2, **options):
    return lambda: generate(model, tokens, max_new_tokens=max_new_tokens, **options)


def say(stop):
    return lambda: generate_text(model, ByteTokenizer(), "ab", max_new_tokens=2, stop=stop)


def pair(model=model, tokenizer=ByteTokenizer(), prompt="ab"):
    return lambda: generate_text(model, tokenizer, prompt, max_new_tokens=2)


# what hands logits over that are no tensor of numbers: an array, a list, whole numbers, nothing
LOGITS = [
    (np.zeros((1, 5), dtype="float32"), "logits is array([[0., 0."),
    ([[0.5, 1.0]], "logits is [[0.5, 1.0]]: give a floating-point tensor"),
    (None, "logits is None"),
    (torch.ones(1, 5, dtype=torch.long), "logits is torch.int64 of shape (1, 5)"),
    (torch.zeros(2, 0), "logits is torch.float32 of shape (2, 0)"),
    (torch.tensor(0.5), "logits is torch.float32 of shape ()"),
]
READERS = [
    lambda x: s.temperature(x, 0.5),
    lambda x: s.top_k(x, 2),
    lambda x: s.top_p(x, 0.5),
    lambda x: s.min_p(x, 0.5),
    lambda x: s.repetition_penalty(x, ids, 1.2),
    s.greedy,
    s.sample,
    lambda x: Sampler(temperature=0.5, top_k=2)(x, ids),
]
CASES = [
    (run([[1, 2]]), "tokens is [[1, 2]]: give integer ids"),
    (run(ids.numpy()), "tokens is [[1 2]"),
    (run(ids[0]), "tokens is torch.int64 (2,)"),
    (run(ids.float()), "tokens is torch.float32 (2, 2)"),
    (run(max_new_tokens=None), "max_new_tokens is None: give a whole number"),
    (run(max_new_tokens=1.5), "max_new_tokens is 1.5"),
    (run(cache="yes"), "cache is 'yes': give 'auto', None"),
    (run(cache=True), "cache is True"),
    (run(sampler=Sampler), "Sampler'>: give a function or an instance, Sampler()"),
    (run(sampler=None), "sampler is None"),
    (run(eos_id="a"), "eos_id is 'a'"),
    (run(eos_id=[1]), "eos_id is [1]: give one token id"),
    (run(sampler=Sampler(), generator=3), "generator is 3: give torch.Generator()"),
    (run(max_new_tokens=True), "max_new_tokens is True"),
    (run(eos_id=True), "eos_id is True"),
    (run(attention_mask=[[1, 1], [1, 1]]), "attention_mask is [[1, 1], [1, 1]]: write torch.t"),
    (run(attention_mask=np.ones((2, 2), dtype=bool)), "attention_mask is array([[ True"),
    (lambda: generate("gpt2", ids, max_new_tokens=2), "model is 'gpt2': give a language model"),
    (lambda: generate(type(model), ids, max_new_tokens=2), "GPT'>: give a language model"),
    (pair(model=None), "model is None"),
    (pair(tokenizer="gpt2"), "tokenizer is 'gpt2': give one of minillm.tokenizers"),
    (pair(model=ByteTokenizer(), tokenizer=model), "tokenizer is GPT("),
    (pair(prompt=[1, 2]), "the text must be a str, got [1, 2]"),
    (say(None), "stop is None: give strings"),
    (say([b"a"]), "stop is (b'a',): give strings"),
    (lambda: Sampler(top_k=2.5), "top_k is 2.5: keep a whole number"),
    (lambda: Sampler(top_k=True), "top_k is True"),
    (lambda: Sampler(temperature="a"), "temperature is 'a'"),
    (lambda: Sampler(temperature=None), "temperature is None"),
    (lambda: Sampler(top_p="a"), "top_p is 'a'"),
    (lambda: Sampler(min_p="a"), "min_p is 'a'"),
    (lambda: Sampler(repetition_penalty=None), "repetition_penalty is None"),
    (lambda: repetition_penalty(torch.zeros(2, 5), ids[:1], 1.2), "int64 (1, 2): logits (2, 5"),
    (lambda: repetition_penalty(torch.zeros(2, 5), ids * 1.0, 1.2), "torch.float32 (2, 2)"),
    (lambda: repetition_penalty(torch.zeros(2, 5), [[1], [2]], 1.2), "previous_tokens is [[1], "),
    (lambda: s.sample(torch.zeros(5)), "logits have shape (5,): one draw is made for each row"),
    (lambda: s.sample(torch.zeros(1, 5), 3), "generator is 3: give torch.Generator()"),
    (lambda: cache.reorder([0]), "rows is [0]: write torch.tensor(rows)"),
    (lambda: cache.reorder(torch.zeros(1)), "rows is tensor([0.])"),
    (lambda: cache.rollback(0.5), "roll back to 0.5 tokens"),
    (lambda: ContiguousCache(1, 1, 1, 2.5, 4), "max_seq_len is 2.5"),
    (lambda: ContiguousCache.for_model(model, max_seq_len=0), "max_seq_len is 0"),
]
CASES += [(lambda r=read, x=x: r(x), said) for read in READERS for x, said in LOGITS]
for number, (call, message) in enumerate(CASES):
    try:
        call()
    except ValueError as error:
        assert message in str(error), f"case {number}: {message!r} is not in {error}"
    else:
        raise AssertionError(f"case {number}: no error, expected {message!r}")
print(len(CASES), "cases")
"""


def test_mistakes_are_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "90 cases"
