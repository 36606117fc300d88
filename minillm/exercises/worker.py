"""Run one submission's cells, then its checks. Started by `grade.py`, in a process of its own.

The job comes on stdin; verdicts leave as JSON lines, each with a secret that the submission was
not told. Checks and learner share this process, so what it does against cheating makes cheating
laborious, not impossible: the sandbox protects the machine, and a person reads what is suspicious.
"""

import contextlib
import importlib
import json
import linecache
import os
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from minillm.exercises.fence import Fence
from minillm.exercises.guard import Tampering, guarded
from minillm.exercises.suites import Suite, judge, load

LIBRARIES = ("torch", "torch.testing", "torch.nn.functional", "torch.linalg", "numpy", "math")


class TooSlow(BaseException):
    """A cell or a check that took too long; `except Exception` does not catch it."""


def main() -> None:
    """Read the job, run the cells, judge every question, and leave without looking back."""
    job = json.loads(sys.stdin.buffer.read())
    say = speaker(job.pop("secret"))
    checks = job.pop("checks")
    if any("torch" in source or "minillm" in source for source in checks.values()):
        for name in LIBRARIES:  # before the learner's code, to see afterwards what it changed
            importlib.import_module(name)
    suites = [load(question, source) for question, source in checks.items()]
    names = fresh_main()
    hide_grader()
    tampering = Tampering()
    limit(job["memory"], job["files"])
    Fence(os.getcwd(), job["hidden"]).raise_()
    seconds = job["cell_seconds"]
    errors = run_cells(job["cells"], names, seconds, say)
    for suite in suites:
        passed, messages = ask(suite, names, seconds, errors)
        flags = tampering.found() + tampering.gullible(suite)
        say(question=suite.question, passed=passed, messages=messages, flags=flags)
    say(end=True, errors=errors)
    os._exit(0)


def speaker(secret: str) -> Callable[..., None]:
    """Take stdout for the worker alone; return a function that writes one signed message to it."""
    channel, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    write, dumps = os.write, json.dumps

    def say(**message: Any) -> None:
        text = dumps({"secret": secret, **message}) + "\n"
        left = text.encode("utf8", "replace")
        while left:
            left = left[write(channel, left) :]

    return say


def fresh_main() -> dict[str, Any]:
    """The namespace of the cells: a new `__main__`, with what a notebook finds there."""
    module = types.ModuleType("__main__")
    module.get_ipython = lambda: None
    module.display = lambda *args, **kwargs: None
    sys.modules["__main__"] = module
    return vars(module)


def hide_grader() -> None:
    """Put an idle grader in the place of this package: a cell's own checks do nothing here."""
    import minillm

    stand_in = types.ModuleType("minillm.exercises")
    idle = types.SimpleNamespace(check=lambda *_: None, progress=lambda: None, questions=[])
    stand_in.grader = lambda slug: idle
    for name in [n for n in sys.modules if n.startswith("minillm.exercises")]:
        del sys.modules[name]
    minillm.exercises = sys.modules["minillm.exercises"] = stand_in


def limit(memory: int, files: int) -> None:
    """Bound this process, and so every process it might start."""
    bounds = {"RLIMIT_AS": memory, "RLIMIT_FSIZE": files, "RLIMIT_CORE": 0}
    for name, bound in bounds.items():
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(getattr(resource, name), (bound, bound))


def run_cells(cells: list[str], names: dict, seconds: float | int, say: Callable) -> list[str]:
    """Run the cells one after another as a notebook would; return what went wrong."""
    errors = []
    for number, source in enumerate(cells, 1):
        say(cell=number)
        try:
            code = compiled(source, f"<cell {number}>")
            with at_most(seconds):
                exec(code, names)
        except BaseException as error:
            errors.append(f"code cell {number}: {told(error)}")
    return errors


def compiled(source: str, name: str) -> types.CodeType:
    """Compile a cell; if it is not Python, without its magics (`%pip …`, `!ls`)."""
    if source.lstrip().startswith("%%"):
        source = "pass"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        return compile(source, name, "exec")
    except SyntaxError:
        lines = source.splitlines()
        for i, line in enumerate(lines):
            bare = line.lstrip()
            if bare.startswith(("%", "!")):
                lines[i] = line[: len(line) - len(bare)] + "pass"
        return compile("\n".join(lines), name, "exec")


@contextlib.contextmanager
def at_most(seconds: float | int) -> Iterator[None]:
    """Raise `TooSlow` after `seconds` of work, or four times that of waiting, and keep at it."""

    def ring(*_: Any) -> None:
        raise TooSlow(f"took longer than {seconds:g} s")

    clocks = {signal.ITIMER_PROF: seconds, signal.ITIMER_REAL: 4 * seconds}
    signal.signal(signal.SIGPROF, ring)
    signal.signal(signal.SIGALRM, ring)
    try:
        for clock, bound in clocks.items():
            signal.setitimer(clock, bound, 0.5)
        yield
    finally:
        for clock in clocks:
            signal.setitimer(clock, 0)


def ask(
    suite: Suite, names: dict, seconds: float | int, errors: list[str]
) -> tuple[list[bool], list[str]]:
    """Judge every check of a question; return which passed, and what the others said."""
    passed, messages = [], []
    for case in suite.cases:
        try:
            with at_most(seconds):
                answers = {n: guarded(names[n]) for n in case.parameters if n in names}
                result = judge(case, suite.question, answers)
            verdict, message = result.verdict, result.message
        except BaseException as error:
            verdict, message = "failed", told(error)
        if verdict == "not started" and message and errors:
            message += f" ({errors[0]})"
        passed.append(verdict == "passed")
        if verdict != "passed":
            messages.append((message or verdict)[:800])
    return passed, list(dict.fromkeys(messages))


def told(error: BaseException) -> str:
    """An error in one line, whatever its `__str__` does."""
    try:
        return f"{type(error).__name__}: {str(error)[:300]}"
    except BaseException:
        return type(error).__name__


if __name__ == "__main__":
    main()
