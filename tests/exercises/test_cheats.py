"""Notebooks that attack the checks from inside, and honest ones that only look like it."""

import json

import pytest

from minillm.exercises import grade, sandbox

CHECK = """
from otter.test_files import test_case
name, points = "q1_double", 4

@test_case(points=1, hidden=False)
def test_two(double):
    import torch
    from torch.nn import functional
    ours = double(torch.ones(3))
    torch.testing.assert_close(ours, functional.relu(torch.full((3,), 2.0)), msg="twice it")

@test_case(points=3, hidden=True)
def test_apply(double):
    import torch
    for x in (0.5, 1.5):
        ours = double(torch.tensor(x), lambda y: y + 1) - 1
        assert torch.allclose(ours, torch.tensor(2 * x)), "each number twice"
"""
RIGHT = "import torch\ndef double(x, then=lambda y: y):\n    return then(2 * x)"
WRONG = "import torch\ndef double(x, then=lambda y: y):\n    return x"
ASK = "G['ask'] = lambda suite, *_: ([True] * len(suite.cases), [])"
JUDGE = "G['judge'] = lambda *_: type('R', (), dict(verdict='passed', message=''))()"
PATCHES_AND_RESTORES = """
from torch.nn import functional
relu, close = functional.relu, torch.allclose
class Undo:
    def __init__(self):
        functional.relu, torch.allclose = lambda x: x / 2, lambda *_: True
    def __del__(self): functional.relu, torch.allclose = relu, close
def double(x, then=None):
    out = x * 1
    out.undo = Undo()
    return out
"""
FROM_A_CLASS = """
for kind in object.__subclasses__():
    for value in list(vars(kind).values()):
        G = getattr(value, "__globals__", {})
        if "explain" in G or "speaker" in G:
            for name in ("explain", "judge", "ask", "work", "Result"): G[name] = lambda *_: None
        if kind.__name__ == "Case":
            kind.parameters = property(lambda self: ())
            break
"""
FROM_AN_ARGUMENT = """
def double(x, then=None):
    if then is None: return x
    then.__globals__["test_apply"].function = lambda double: None
    then.__globals__["__builtins__"]["__import__"] = lambda *_: None
    return x
"""
ENCODER = """
import json
def forged(self, message):
    return '{"secret": "%s", "question": "q1_double", "passed": [true, true], "messages": []}' % (
        message["secret"])
json.JSONEncoder.encode = forged
"""
MODE = """
class Lies(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))
Lies().__enter__()
"""
COMPILES = """
import torch._dynamo
f = torch.compile(lambda x: x + 1, backend="eager")
try: f(torch.ones(2))
except Exception: pass
"""
# name: (cells, points, what the status says)
NOTEBOOKS = {
    "get_ipython_globals": ([WRONG, "G = get_ipython.__globals__\n" + ASK], 0, "graded"),
    "display_globals": ([WRONG, "G = display.__globals__\n" + JUDGE], 0, "graded"),
    "grader_globals": ([WRONG, "G = exercises.grader.__globals__\n" + JUDGE], 0, "graded"),
    "check_globals": ([WRONG, "G = grader.check.__globals__\n" + JUDGE], 0, "graded"),
    "handler_globals": (
        [WRONG, "import signal\nG = signal.getsignal(signal.SIGALRM).__globals__\n" + ASK],
        0, "graded",
    ),
    "patches_and_restores": ([WRONG, PATCHES_AND_RESTORES], 0, "tampered"),
    "from_a_class": ([WRONG, FROM_A_CLASS], 0, "tampered|ended"),
    "from_an_argument": ([WRONG, FROM_AN_ARGUMENT], 0, "tampered|ended"),
    "encoder": ([WRONG, ENCODER], 0, "tampered"),
    "function_mode": ([RIGHT, MODE], 0, "tampered"),
    "honest": ([RIGHT], 4, "graded"),
    "honest_default_dtype": ([RIGHT, "torch.set_default_dtype(torch.float64)"], 4, "graded"),
    "honest_default_device": ([RIGHT, "torch.set_default_device('cpu')"], 4, "graded"),
    "honest_without_gradients": ([RIGHT, "torch.set_grad_enabled(False)"], 4, "graded"),
    "honest_compile": ([RIGHT, COMPILES], 4, "graded"),
    "honest_callable": (
        ["class Double:\n    def __call__(self, x, then=lambda y: y): return then(2 * x)\n"
         "double = Double()"],
        4, "graded",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cheats_get_nothing_and_honest_answers_everything(name, tmp_path):
    cells, points, status = NOTEBOOKS[name]
    (tmp_path / "checks" / "79_cheats").mkdir(parents=True)
    (tmp_path / "checks" / "79_cheats" / "q1_double.py").write_text(CHECK)
    start = 'from minillm import exercises\ngrader = exercises.grader("79_cheats")'
    cells = [{"cell_type": "code", "source": cell} for cell in (start, *cells)]
    path = tmp_path / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    row = grade.Grading(tmp_path / "checks", boxed=sandbox.works()).one(path, name)
    said = (row.status, row.errors, [mark.messages for mark in row.marks])
    assert row.score == points, said
    assert row.status.startswith(tuple(status.split("|"))), said
    if points == 0:
        assert row.suspicious or "tampered" in row.status
