import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from minillm.exercises.suites import Case, Suite, judge, load

FILE = """
from otter.test_files import test_case

OK_FORMAT = False
name = "q1_half"
points = 3

@test_case(points=1, hidden=False, failure_message="half of it")
def test_four(half):
    assert half(4) == 2

@test_case(points=None, hidden=False)
def test_five(half):
    assert half(5) == 2.5, "do not round"

@test_case(points=None, hidden=True)
def test_zero(half):
    import torch
    assert half(torch.zeros(2)).shape == (2,), "keep the shape"
"""


@pytest.fixture
def suite() -> Suite:
    return load("q1_half", FILE)


def ask(suite, half) -> list[tuple]:
    results = [judge(case, suite.question, {"half": half}) for case in suite.cases]
    return [(r.verdict, r.message) for r in results]


def test_reads_otters_files_without_otter(suite, monkeypatch):
    before = sys.modules.get("otter.test_files")
    assert [case.name for case in suite.cases] == ["test_four", "test_five", "test_zero"]
    assert [case.hidden for case in suite.cases] == [False, False, True]
    assert sys.modules.get("otter.test_files") is before


def test_many_threads_load_at_once():
    def names(_) -> list:
        return [case.name for _ in range(20) for case in load("q1_half", FILE).cases]

    before = sys.modules.get("otter"), sys.modules.get("otter.test_files")
    sources = FILE.replace("import torch", "import otter.test_files as again, math")
    assert load("q1_half", sources).cases[2].name == "test_zero"
    with ThreadPoolExecutor(8) as pool:
        assert {tuple(found) for found in pool.map(names, range(40))} == {tuple(names(0))}
    assert (sys.modules.get("otter"), sys.modules.get("otter.test_files")) == before


def test_points_are_shared_as_otter_shares_them(suite):
    from otter.test_files.abstract_test import TestCase, TestFile

    cases = [TestCase(c.name, None, c.hidden, c.points, None, None) for c in suite.cases]
    shared = TestFile.resolve_test_file_points(3, cases)
    assert [suite.worth(case) for case in suite.cases] == [case.points for case in shared]
    assert sum(suite.worth(case) for case in suite.cases) == 3


def test_without_points_a_question_is_worth_one():
    suite = load(
        "q", FILE.replace("points = 3", "points = None").replace("points=1", "points=None")
    )
    assert suite.points == 1
    assert sum(suite.worth(case) for case in suite.cases) == pytest.approx(1)


def test_verdicts(suite):
    assert ask(suite, lambda x: x / 2) == [("passed", "")] * 3
    (four, said), (five, why), _ = ask(suite, lambda x: x // 2)
    assert (four, five, why) == ("passed", "failed", "do not round")
    assert said == ""


def test_stub_is_not_started(suite):
    def half(x):
        raise NotImplementedError("q1: write half")

    assert {verdict for verdict, _ in ask(suite, half)} == {"not started"}
    assert {verdict for verdict, _ in ask(suite, ...)} == {"not started"}
    missing = judge(suite.cases[0], "q1_half", {})
    assert missing.verdict == "not started"
    assert "`half` is not defined" in missing.message


def test_not_implemented_elsewhere_is_a_failure(suite):
    def half(x):
        raise NotImplementedError("'halve' is not implemented for 'Int'")

    verdict, message = ask(suite, half)[1]
    assert verdict == "failed"
    assert "not implemented for 'Int'" in message


def test_an_error_names_the_learners_line(suite):
    def half(x):
        return x / nothing

    verdict, message = ask(suite, half)[1]
    assert verdict == "failed"
    assert "NameError" in message
    assert "in `half`: return x / nothing" in message


def test_text_where_a_number_belongs_is_named():
    source = FILE.replace("half(4) == 2", "abs(half - 2) < 1")
    (case, *_) = load("q1_half", source).cases
    said = judge(case, "q1_half", {"half": "2 MB"}).message
    assert said.startswith("`half` is text (a str), expected a number")
    assert "TypeError" in judge(case, "q1_half", {"half": [2]}).message


def test_failure_message_leads(suite):
    assert ask(suite, lambda x: 0)[0] == ("failed", "half of it")


def test_an_error_that_cannot_be_shown_does_not_stop_the_judge(suite):
    class Mute(Exception):
        def __str__(self):
            return ""

    def half(x):
        raise Mute

    assert "Mute: no message" in ask(suite, half)[1][1]


def test_file_without_checks_is_refused():
    with pytest.raises(ValueError, match="no @test_case"):
        load("q1", "points = 1")


def test_parameters_are_those_of_the_function():
    def check(a, b):
        c = a + b
        assert c

    assert Case()(check).parameters == ("a", "b")
