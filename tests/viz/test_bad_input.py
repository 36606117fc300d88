"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.viz import attention_heads, attention_map, figure, subplots, token_strip

weights, alt = torch.full((2, 2), 0.5), "Line plot: loss falls from 4 to 1 in 10 steps"

CASES = [
    (lambda: attention_map(weights.numpy()), "weights is array([[0.5"),
    (lambda: attention_map(weights[None]), "weights have shape (1, 2, 2); give one number"),
    (lambda: attention_map(weights, [1, 2]), "queries are [1, 2]; give strings"),
    (lambda: attention_heads(weights), "(heads, queries, keys)"),
    (lambda: attention_heads(torch.zeros(0, 2, 2)), "weights have shape (0, 2, 2)"),
    (lambda: attention_heads(weights[None], columns=0), "columns is 0; give how many maps"),
    (lambda: token_strip([65], ["A"]), "pieces is [65]; give tokenizer.pieces(ids)"),
    (lambda: token_strip(None), "pieces is None"),
    (lambda: figure(None, alt=alt), "fig is None; give the figure"),
    (lambda: figure(subplots()[1], alt=alt), "give the figure, which is `ax.figure` of its axes"),
    (lambda: figure(subplots()[0], alt=None), "alt=None says too little"),
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
    assert done.stdout.strip() == "11 cases"
