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
from collections.abc import Callable, Iterable
from typing import Any

from minillm.exercises import guard
from minillm.exercises import suites as checking
from minillm.exercises.fence import Fence
from minillm.exercises.guard import calming, guarded, gullible, sealed, watch
from minillm.exercises.suites import Case, Result, Suite, judge, load

LIBRARIES = ("torch", "torch.testing", "torch.nn.functional", "torch.linalg", "numpy", "math")
QUOTE = json.encoder.encode_basestring_ascii
RING = "def ring(*_): raise slow(message)"


class TooSlow(BaseException):
    """A cell or a check that took too long; `except Exception` does not catch it."""


def main() -> None:
    """Do the job in a namespace that no object in the learner's reach leads to."""
    sealed(vars(checking), vars(guard), globals())["work"]()


def work() -> None:
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
    found, calm = watch(suites, Fence, TooSlow, json.JSONEncoder), calming()
    limit(job["memory"], job["files"])
    Fence(os.getcwd(), job["hidden"]).raise_()
    seconds = job["cell_seconds"]
    errors = run_cells(job["cells"], names, seconds, say)
    for suite in suites:
        caught: list[str] = []
        passed, messages = ask(suite, names, seconds, errors, calm, overseer(found, caught))
        calm()
        flags = caught + found() + gullible(suite)
        say(question=suite.question, passed=passed, messages=messages, flags=flags)
    say(end=True, errors=errors)
    os._exit(0)


def overseer(found: Callable[[], list[str]], caught: list[str]) -> Callable[[dict], None]:
    """What runs whenever an answer returns: it notes in `caught` what the answer replaced.

    A check may itself replace something while it asks: that was so before the answer, too.
    """

    def after(before: dict) -> None:
        answered = set(before.items()) ^ set(found.changed().items())
        caught.extend(sorted(name for name, _ in answered)[: 20 - len(caught)])

    after.changed = found.changed
    return after


def speaker(secret: str) -> Callable[..., None]:
    """Take stdout for the worker alone; return a function that writes one signed message to it."""
    channel, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    write = os.write

    def say(**message: Any) -> None:
        left = (encoded({"secret": secret, **message}) + "\n").encode("ascii")
        while left:
            left = left[write(channel, left) :]

    return say


def encoded(value: Any) -> str:
    """JSON, without the encoder of Python's library, which a learner could replace."""
    if isinstance(value, str):
        return QUOTE(value)
    if isinstance(value, list):
        return f"[{','.join([encoded(item) for item in value])}]"
    if isinstance(value, dict):
        return "{" + ",".join([f"{QUOTE(k)}:{encoded(v)}" for k, v in value.items()]) + "}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(int(value))


def fresh_main() -> dict[str, Any]:
    """The namespace of the cells: a new `__main__`, with what a notebook finds there."""
    module = types.ModuleType("__main__")
    module.get_ipython = module.display = idle()
    sys.modules["__main__"] = module
    return vars(module)


def idle() -> Callable[..., None]:
    """A function that does nothing, whose `__globals__` hold nothing of this module."""
    return bare("def idle(*args, **kwargs): return None", "idle")


def bare(source: str, name: str, **space: Any) -> Any:
    """What `source` defines as `name`, in a namespace of its own that holds `space`."""
    exec(source, space)
    return space[name]


def hide_grader() -> None:
    """Put an idle grader in the place of this package: a cell's own checks do nothing here."""
    import minillm

    stand_in = types.ModuleType("minillm.exercises")
    nothing = types.SimpleNamespace(check=idle(), progress=idle(), questions=[])
    stand_in.grader = bare("def grader(slug): return nothing", "grader", nothing=nothing)
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
            within(seconds, exec, code, names)
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


def within(seconds: float | int, function: Callable, *args: Any) -> Any:
    """Call `function`; raise `TooSlow` after `seconds` of work, or four times that of waiting."""
    message = f"took longer than {seconds:g} s"
    ring = bare(RING, "ring", slow=TooSlow, message=message)  # a learner can get hold of it
    clocks = {signal.ITIMER_PROF: seconds, signal.ITIMER_REAL: 4 * seconds}
    signal.signal(signal.SIGPROF, ring)
    signal.signal(signal.SIGALRM, ring)
    try:
        for clock, bound in clocks.items():
            signal.setitimer(clock, bound, 0.5)
        return function(*args)
    finally:
        silence(clocks)


def silence(clocks: Iterable[int]) -> None:
    """Stop the clocks; one that rings meanwhile does not keep the others going."""
    while True:
        try:
            for clock in clocks:
                signal.setitimer(clock, 0)
            return
        except TooSlow:
            continue


def ask(
    suite: Suite,
    names: dict,
    seconds: float | int,
    errors: list[str],
    calm: Callable[[], None] = lambda: None,
    after: Callable[[dict], None] | None = None,
) -> tuple[list[bool], list[str]]:
    """Judge every check of a question; return which passed, and what the others said."""

    def one(case: Case) -> Result:
        calm()
        answers = {n: guarded(names[n], after) for n in case.parameters if n in names}
        return judge(case, suite.question, answers)

    passed, messages = [], []
    for case in suite.cases:
        try:
            result = within(seconds, one, case)
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
