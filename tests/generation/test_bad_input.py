"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import numpy as np
import torch
from minillm.generation import *
from minillm.generation.sampling import repetition_penalty
from minillm.models.gpt import gpt_tiny
from minillm.tokenizers import ByteTokenizer

model = gpt_tiny(256, max_seq_len=9, d_model=8, n_heads=2, n_layers=1).eval()
ids, cache = torch.tensor([[1, 2], [3, 4]]), ContiguousCache(1, 1, 1, 4, 2)


def run(tokens=ids, max_new_tokens=2, **options):
    return lambda: generate(model, tokens, max_new_tokens=max_new_tokens, **options)


def say(stop):
    return lambda: generate_text(model, ByteTokenizer(), "ab", max_new_tokens=2, stop=stop)


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
    (lambda: cache.rollback(0.5), "roll back to 0.5 tokens"),
    (lambda: ContiguousCache(1, 1, 1, 2.5, 4), "max_seq_len is 2.5"),
    (lambda: ContiguousCache.for_model(model, max_seq_len=0), "max_seq_len is 0"),
]
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
    assert done.stdout.strip() == "27 cases"
