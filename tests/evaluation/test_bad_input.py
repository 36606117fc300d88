"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.evaluation import perplexity
from minillm.evaluation.classification import average_scores, confusion_matrix


ids = torch.arange(4)


def ppl(model=lambda t: torch.zeros(*t.shape, 5), tokens=ids, **options):
    return lambda: perplexity(model, tokens, max_seq_len=4, **options)

CASES = [
    (ppl(None), "model is None; give a function from ids to logits"),
    (ppl(n_bytes="3"), "n_bytes is '3'; give a whole number"),
    (ppl(n_bytes=2.5), "n_bytes is 2.5"),
    (ppl(tokens=torch.tensor([1, -100, 2])), "token id -100 is negative"),
    (ppl(tokens=ids + 2), "token id 5 is outside the model's vocabulary of 5"),
    (ppl(lambda t: (t,)), "the model gives tuple for ids of shape (1, 3)"),
    (ppl(lambda t: t.float()), "the model gives (1, 3) for ids"),
    (lambda: confusion_matrix(ids / 2, ids, 4), "targets must be whole numbers"),
    (lambda: confusion_matrix(ids, ids[:2], 4), "4 targets for 2 predictions"),
    (lambda: average_scores(torch.eye(2).long(), "mean"), "average is 'mean'"),
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
    assert done.stdout.strip() == "10 cases"
