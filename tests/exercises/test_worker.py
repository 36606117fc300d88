"""The parts of the worker that can run here; test_grade.py runs it whole, in its own process."""

import json
import time

import pytest

from minillm.exercises.suites import load
from minillm.exercises.worker import TooSlow, ask, compiled, encoded, run_cells, told, within


def test_cells_share_names_and_go_on_after_an_error():
    names, said = {}, []
    cells = ["x = 1", "y = x + nothing", "z = x + 1", "def broken(:"]
    errors = run_cells(cells, names, 5, lambda **message: said.append(message))
    assert names["z"] == 2
    assert [error.split(":")[0] for error in errors] == ["code cell 2", "code cell 4"]
    assert [message["cell"] for message in said] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("try:\n    import nothing_here\nexcept ImportError:\n    %pip install x\nx = 1", 1),
        ("!ls\n%matplotlib inline\nx = 2", 2),
        ("x = (7\n     % 4)", 3),
        ("text = '''\n% kept\n'''\nx = len(text)", 8),
    ],
)
def test_magics_are_left_out_and_python_is_not(source, value):
    names = {}
    exec(compiled(source, "<cell>"), names)
    assert names["x"] == value


def test_a_check_can_quote_the_learners_line():
    names = {}
    exec(compiled("def half(x):\n    return x / nothing", "<cell 9>"), names)
    source = """
from otter.test_files import test_case
points = 1

@test_case(points=1, hidden=False)
def test_half(half):
    assert half(4) == 2, "half"
"""
    _, (message,) = ask(load("q1_half", source), names, 5, [])
    assert "line 2 of the cell, in `half`: return x / nothing" in message


def test_cell_magic_is_left_out():
    exec(compiled("%%bash\nexit 1", "<cell>"))


def spin():
    while True:
        pass


def test_work_is_stopped_and_so_is_waiting():
    with pytest.raises(TooSlow):
        within(0.2, spin)
    start = time.monotonic()
    with pytest.raises(TooSlow):
        within(0.1, time.sleep, 30)
    assert time.monotonic() - start < 10
    time.sleep(0.6)  # the clock has stopped


def test_too_slow_is_not_an_exception():
    names = {}
    source = "while True:\n    try:\n        while True: pass\n    except Exception: pass"
    errors = run_cells([source], names, 0.2, lambda **_: None)
    assert "TooSlow" in errors[0]


def test_verdicts_and_words():
    source = """
from otter.test_files import test_case
points = 2

@test_case(points=1, hidden=False)
def test_a(x):
    assert x > 1, "more than one"

@test_case(points=1, hidden=False)
def test_b(x):
    assert x > 2, "more than two"
"""
    suite = load("q1_x", source)
    assert ask(suite, {"x": 3}, 5, []) == ([True, True], [])
    assert ask(suite, {"x": 2}, 5, []) == ([True, False], ["more than two"])
    passed, messages = ask(suite, {}, 5, ["code cell 1: NameError: y"])
    assert passed == [False, False]
    assert "not defined" in messages[0]
    assert "code cell 1: NameError" in messages[0]


def test_an_error_that_refuses_to_be_told():
    class Sulks(Exception):
        def __str__(self):
            raise RuntimeError

    assert told(Sulks()) == "Sulks"


def test_what_the_worker_writes_is_json():
    message = {"a": ['x\n"\ud800', True, False], "b": 3, "c": {}, "d": []}
    assert json.loads(encoded(message)) == message
