"""Every exercise set: the stub is not started, the solution passes, every wrong answer fails.

How a set and its wrong answers are written: README.md beside this file.
"""

import ast
import functools
import importlib.util
import json
import linecache
import re
import sys
from pathlib import Path

import pytest
import torch

from minillm.exercises.suites import judge, load

ROOT = Path(__file__).resolve().parents[2]
SLUGS = [path.stem for path in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.md"))]
CHECK = re.compile(r'grader\.check\("(\w+)"\)')
FACTS = re.compile(
    r"Difficulty: (easy|medium|hard|open-ended) · about (\d+) minutes · builds on: ([^*]+)\*"
)
DEFAULT_MESSAGE = re.compile(
    r"(Tensor-likes|Scalars|Expected|Booleans|The values for) |the check `"
)
ALLOWED = {"torch", "minillm", "otter", *sys.stdlib_module_names}


# ------------------------------------------------------------------------------------ reading a set


@functools.cache
def suites(slug: str, folder: str) -> dict:
    paths = sorted((ROOT / folder / "tests" / slug).glob("*.py"))
    return {path.stem: load(path.stem, path.read_text("utf8")) for path in paths}


def cells(slug: str, folder: str) -> list[dict]:
    notebook = json.loads((ROOT / folder / f"{slug}.ipynb").read_text("utf8"))
    return [{**c, "source": "".join(c["source"])} for c in notebook["cells"]]


def run(slug: str, folder: str) -> dict:
    """The names a notebook defines: all its code cells but the setup and the checks."""
    names = {"__name__": "__main__"}
    for i, cell in enumerate(cells(slug, folder)):
        tags = cell["metadata"].get("tags", [])
        if (
            cell["cell_type"] == "code"
            and "minillm-setup" not in tags
            and not CHECK.search(cell["source"])
        ):
            name, source = f"<cell {i} of {slug}>", cell["source"]
            # as notebooks and the grader do: Triton's interpreter reads a kernel's source
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            exec(compile(source, name, "exec"), names)
    return names


solved = functools.cache(functools.partial(run, folder="solutions"))
untouched = functools.cache(functools.partial(run, folder="exercises"))


@functools.cache
def by_question(slug: str) -> dict[str, list[dict]]:
    """The learner's cells of each question: those up to its check."""
    found, block = {}, []
    for cell in cells(slug, "exercises"):
        block.append(cell)
        match = CHECK.search(cell["source"])
        if match and cell["cell_type"] == "code":
            found[match[1]], block = block, []
    return found


@functools.cache
def answer_names(slug: str, question: str) -> list[str]:
    """What the answer cell of a question defines and its checks ask for."""
    defined = []
    for cell in by_question(slug)[question]:
        if "otter_answer_cell" in cell["metadata"].get("tags", []):
            for node in ast.parse(cell["source"]).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    defined.append(node.name)
                elif isinstance(node, ast.Assign):
                    defined += [t.id for t in node.targets if isinstance(t, ast.Name)]
    asked = {n for case in suites(slug, "solutions")[question].cases for n in case.parameters}
    return [name for name in defined if name in asked]


@functools.cache
def wrong_answers(slug: str) -> dict:
    path = ROOT / "tests" / "exercises" / "wrong" / f"{slug}.py"
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"wrong_{slug}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {n: v for n, v in vars(module).items() if re.match(r"q\d+_", n) and callable(v)}


def replacement(slug: str, question: str, wrong) -> dict:
    """The names a wrong answer puts in the place of the right ones."""
    names = answer_names(slug, question)
    if len(names) == 1 and callable(solved(slug)[names[0]]):
        return {names[0]: wrong}
    value = wrong()
    return value if len(names) > 1 else {names[0]: value}


def results(slug: str, question: str, answers: dict, folder: str = "solutions") -> list:
    return [judge(case, question, answers) for case in suites(slug, folder)[question].cases]


# ---------------------------------------------------------------------------- lists of what to test

QUESTIONS = [
    pytest.param(slug, path.stem, id=f"{slug}-{path.stem}")
    for slug in SLUGS
    for path in sorted((ROOT / "solutions" / "tests" / slug).glob("*.py"))
]
WRONG = [pytest.param(s, n, id=f"{s}-{n}") for s in SLUGS for n in wrong_answers(s)]
each_set = pytest.mark.parametrize("slug", SLUGS)
each_question = pytest.mark.parametrize(("slug", "question"), QUESTIONS)


# ------------------------------------------------------------------------------------------ the set


@each_set
def test_has_four_to_six_questions_and_no_other_wrong_answers(slug):
    questions = list(suites(slug, "solutions"))
    assert 4 <= len(questions) <= 6
    assert list(by_question(slug)) == questions, (
        "a question has no check cell, or the order differs"
    )
    assert list(suites(slug, "exercises")) == questions, "a question has no public check"
    numbers = {question.split("_")[0] for question in questions}
    assert {name.split("_")[0] for name in wrong_answers(slug)} <= numbers


@each_set
def test_names_itself(slug):
    notebook = json.loads((ROOT / "exercises" / f"{slug}.ipynb").read_text("utf8"))
    assert notebook["metadata"]["minillm"]["exercise"] == slug
    assert any(f'grader("{slug}")' in cell["source"] for cell in cells(slug, "exercises"))


# ------------------------------------------------------------------------------------ its questions


@each_question
def test_states_what_it_takes(slug, question):
    text = "\n".join(
        c["source"] for c in by_question(slug)[question] if c["cell_type"] == "markdown"
    )
    facts = FACTS.search(text)
    assert facts, "the line '*Difficulty: … · about N minutes · builds on: …*' is missing"
    assert 1 <= int(facts[2]) <= 90
    chapters = [int(n) for n in re.findall(r"\b(\d\d) [a-z]", facts[3])]
    assert chapters, "'builds on' names no chapter"
    assert max(chapters) <= int(slug[:2]), "it builds on a later chapter"
    hints = re.findall(
        r"<details>\s*<summary>Hint (\d)(?:: [^<]+)?</summary>(.*?)</details>", text, re.S
    )
    assert [number for number, _ in hints] == ["1", "2", "3"]
    assert all(len(body.split()) >= 5 for _, body in hints), "a hint says nothing"


@each_question
def test_public_checks_need_only_torch_and_minillm(slug, question):
    source = (ROOT / "exercises" / "tests" / slug / f"{question}.py").read_text("utf8")
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= ALLOWED


@each_question
def test_untouched_stub_is_not_started(slug, question):
    for result in results(slug, question, untouched(slug)):
        assert result.verdict == "not started", f"{result.verdict}: {result.message}"


@each_question
def test_solution_passes(slug, question):
    for result in results(slug, question, solved(slug)):
        assert result.verdict == "passed", result.message


@each_question
def test_no_check_accepts_nothing(slug, question):
    """`make grade` takes a check that accepts this for a check that was tampered with."""
    for case in suites(slug, "solutions")[question].cases:
        nothing = dict.fromkeys(case.parameters, lambda *args, **kwargs: None)
        assert judge(case, question, nothing).verdict == "failed", case.name


@each_question
def test_has_four_wrong_answers(slug, question):
    number = question.split("_")[0] + "_"
    assert sum(name.startswith(number) for name in wrong_answers(slug)) >= 4


@pytest.mark.parametrize(("slug", "name"), WRONG)
def test_wrong_answer_fails_and_is_told_why(slug, name, monkeypatch):
    number = name.split("_")[0] + "_"
    (question,) = [q for q in suites(slug, "solutions") if q.startswith(number)]
    answers = solved(slug)
    for key, value in replacement(slug, question, wrong_answers(slug)[name]).items():
        monkeypatch.setitem(answers, key, value)
    failures = [r for r in results(slug, question, answers) if r.verdict == "failed"]
    assert failures, "it passes every check"
    error, said = failures[0].error, failures[0].message
    assert isinstance(error, AssertionError), said
    assert len(said) >= 20, f"the message says nothing: {said!r}"
    assert not DEFAULT_MESSAGE.match(said), f"a default message: {said!r}"


@each_question
@pytest.mark.parametrize("factor", [0, 2], ids=["zeros", "twice"])
def test_zeros_and_twice_the_answer_fail(slug, question, factor, monkeypatch):
    answers, changes = solved(slug), []
    for name in answer_names(slug, question):
        monkeypatch.setitem(answers, name, scaled(answers[name], factor, changes))
    verdicts = [r.verdict for r in results(slug, question, answers)]
    if not changes:
        pytest.skip("no number in the answer")
    assert "failed" in verdicts, f"{factor} times the answer passes"


def scaled(answer, factor: int, changes: list):
    """`factor` times the numbers in an answer or in what it returns; `changes` collects them."""
    if isinstance(answer, type | torch.nn.Module | str | bytes) or answer is None:
        return answer
    if isinstance(answer, tuple | list):
        return type(answer)(scaled(part, factor, changes) for part in answer)
    if isinstance(answer, dict):
        return {key: scaled(value, factor, changes) for key, value in answer.items()}
    if callable(answer):
        return lambda *args, **kwargs: scaled(answer(*args, **kwargs), factor, changes)
    if isinstance(answer, torch.Tensor | bool | int | float):
        changes.append(answer)
        boolean = isinstance(answer, bool) or getattr(answer, "dtype", None) == torch.bool
        return answer ^ True if boolean else answer * factor
    return answer
