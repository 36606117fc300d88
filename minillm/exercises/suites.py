"""Check files: otter-grader's plain-function format, read without otter.

A check file holds `name`, `points` and functions decorated with `@test_case(points=…, hidden=…)`.
Each function takes the learner's names as its parameters and asserts something about them. Learner,
grader and the tests of the exercise sets all read these files here, and judge with `judge`.
"""

import builtins
import sysconfig
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# Files that are not the learner's: Python's own, what is installed, minillm, generated code.
OTHERS = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
OTHERS += (str(Path(__file__).parents[1]), "<@", "<frozen", "<string>", "<eval_with_key>")

Verdict = Literal["passed", "failed", "not started"]


@dataclass
class Case:
    """One check: a function of the learner's names, and the decorator `test_case` around it."""

    name: str | None = None
    points: float | int | None = None
    hidden: bool = False
    success_message: str | None = None
    failure_message: str | None = None
    function: Callable = field(default=lambda: None, repr=False)

    def __call__(self, function: Callable) -> "Case":
        """Decorate `function`."""
        self.function, self.name = function, self.name or function.__name__
        return self

    @property
    def parameters(self) -> tuple[str, ...]:
        """The learner's names that this check asks for."""
        code = self.function.__code__
        return code.co_varnames[: code.co_argcount]


@dataclass(frozen=True)
class Suite:
    """The checks of one question, and what each is worth."""

    question: str
    cases: list[Case]
    points: float

    def worth(self, case: Case) -> float:
        """Points for `case`: its own, or an equal share of what the others leave (otter's rule)."""
        if case.points is not None:
            return float(case.points)
        fixed = sum(c.points for c in self.cases if c.points is not None)
        return (self.points - fixed) / sum(c.points is None for c in self.cases)


@dataclass(frozen=True)
class Result:
    """What one check said about one answer."""

    verdict: Verdict
    message: str = ""
    error: BaseException | None = field(default=None, repr=False, compare=False)


def load(question: str, source: str) -> Suite:
    """Run the text of a check file and return its suite.

    The file imports `otter.test_files`, which a learner does not have: `Case` stands in for it.
    It sees builtins of its own, so several threads may load files, and none changes the others'.
    """
    own = {**vars(builtins), "__import__": importer(builtins.__import__)}
    space: dict[str, Any] = {"__name__": f"checks.{question}", "__builtins__": own}
    exec(compile(source, f"<checks of {question}>", "exec"), space)
    cases = [value for value in space.values() if isinstance(value, Case)]
    if not cases:
        raise ValueError(f"the check file of {question!r} has no @test_case function; add one")
    points = space.get("points")
    if points is None:
        points = sum(c.points for c in cases if c.points is not None) or 1.0
    return Suite(question, cases, float(points))


def importer(usual: Callable) -> Callable:
    """An `__import__` that knows a stand-in for `otter.test_files`, and the usual modules."""
    otter, files = types.ModuleType("otter"), types.ModuleType("otter.test_files")
    otter.test_files, files.test_case = files, Case

    def importing(name: str, *rest: Any, **named: Any) -> types.ModuleType:
        fromlist = rest[2] if len(rest) > 2 else named.get("fromlist")
        stand_ins = {"otter": otter, "otter.test_files": files if fromlist else otter}
        return stand_ins[name] if name in stand_ins else usual(name, *rest, **named)

    return importing


def judge(case: Case, question: str, answers: dict[str, Any]) -> Result:
    """Run one check on the learner's names and say in words how it went; raises no `Exception`."""
    missing = [n for n in case.parameters if n not in answers and n != "env"]
    if missing:
        return Result("not started", f"`{missing[0]}` is not defined: run the cell above first")
    arguments = {n: answers if n == "env" else answers[n] for n in case.parameters}
    unset = [name for name, value in arguments.items() if value is ...]
    if unset:
        return Result("not started", f"`{unset[0]}` is still `...`")
    try:
        case.function(**arguments)
    except NotImplementedError as error:
        if is_stub(error, question):
            return Result("not started", "", error)
        return Result("failed", explain(case, error), error)
    except Exception as error:
        said = text_for_number(arguments, error) if not place(error, case) else ""
        return Result("failed", said or explain(case, error), error)
    return Result("passed", case.success_message or "")


def text_for_number(arguments: dict[str, Any], error: BaseException) -> str:
    """Say which answer is text if a check could not count with it; empty if that is not it."""
    texts = [name for name, value in arguments.items() if type(value) is str]
    if not isinstance(error, TypeError) or not texts:
        return ""
    return f"`{texts[0]}` is text (a str), expected a number: leave out quotes and units"


def is_stub(error: NotImplementedError, question: str) -> bool:
    """Whether `error` comes from the untouched stub ("q1: …") and not from, say, torch."""
    text = str(error).strip()
    return not text or text.startswith(question.split("_")[0])


def explain(case: Case, error: BaseException) -> str:
    """Why a check failed: the assertion's own words, or where the learner's code raised."""
    said = str(error).strip()
    if not isinstance(error, AssertionError):
        said = (
            f"your code raised {type(error).__name__}: {said or 'no message'}{place(error, case)}"
        )
    lead = case.failure_message
    if lead and lead not in said:
        return f"{lead}: {said}" if said else lead
    return said or f"the check `{case.name}` does not hold"


def place(error: BaseException, case: Case) -> str:
    """Say which line of the learner's own code `error` passed through last, if there was one."""
    frames = traceback.extract_tb(error.__traceback__)
    checks = case.function.__code__.co_filename
    inside = [i for i, frame in enumerate(frames) if frame.filename == checks]
    called = frames[inside[-1] + 1 :] if inside else []
    own = [frame for frame in called if not frame.filename.startswith(OTHERS)]
    if not own:
        return ""
    line = f": {own[-1].line}" if own[-1].line else ""
    return f" (line {own[-1].lineno} of the cell, in `{own[-1].name}`{line})"
