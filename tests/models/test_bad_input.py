"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.models.gpt import GPT, gpt2, gpt_tiny

model, ids = gpt_tiny(9, d_model=8, n_heads=2, n_layers=1), torch.tensor([[1, 2]])

CASES = [
    (lambda: model([[1]]), "tokens is [[1]]; write"),
    (lambda: model(ids, positions=[[0, 1]]), "positions is [[0, 1]]; write `torch.tensor(pos"),
    (lambda: model(ids, attention_mask=[[True] * 2]), "attention_mask is [[True, True]]; write"),
    (lambda: GPT({"vocab_size": 3}), "config is {'vocab_size': 3}; write GPT(GPTConfig(...))"),
    (lambda: gpt2(["small"]), "unknown size ['small']; choose from small, medium"),
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
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "5 cases"
