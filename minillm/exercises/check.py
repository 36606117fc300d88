"""Check answers where they are written: Colab, Jupyter, a terminal or pytest.

    from minillm import exercises

    grader = exercises.grader("05_attention")
    grader.check("q1_cache_bytes")

The checks are the public ones: they travel inside an installed package as `minillm/checks/<slug>/`,
and lie in `exercises/tests/<slug>/` of a checkout.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, no_type_check

from minillm.exercises.suites import Result, Suite, Verdict, judge, load

SYMBOLS: dict[Verdict, str] = {"passed": "✔", "failed": "✘", "not started": "○"}
# White on these is readable, and they stand on a light page as on a dark one.
COLORS: dict[Verdict, str] = {"passed": "#1a7f37", "failed": "#b3261e", "not started": "#57606a"}


@dataclass(frozen=True)
class Outcome:
    """How one question stands, with what its checks say; it shows itself when it is made."""

    question: str
    verdict: Verdict
    messages: list[str] = field(default_factory=list)
    progress: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return self.verdict == "passed"

    def __repr__(self) -> str:
        lines = [f"{SYMBOLS[self.verdict]} {self.question}: {self.verdict}"]
        lines += ["  " + message.replace("\n", "\n  ") for message in self.messages]
        return "\n".join([*lines, f"  {self.progress}"] if self.progress else lines)

    def _repr_html_(self) -> str:
        color = COLORS[self.verdict]
        badge = (
            f"<span style='background:{color};color:#fff;border-radius:4px;padding:1px 8px'>"
            f"{SYMBOLS[self.verdict]} {self.verdict}</span> <code>{escape(self.question)}</code>"
        )
        lines = "".join(
            f"<div style='white-space:pre-wrap;margin:6px 0 0'>{escape(message)}</div>"
            for message in self.messages
        )
        progress = f"<div style='opacity:.75;margin:6px 0 0'>{escape(self.progress)}</div>"
        style = f"border-left:4px solid {color};padding:4px 12px;margin:4px 0;color:inherit"
        inside = badge + lines + (progress if self.progress else "")
        return f"<div role='status' style='{style}'>{inside}</div>"

    def _ipython_display_(self) -> None:
        """Nothing more: `show` has displayed it, also where the call is not a cell's last line."""


@dataclass(frozen=True)
class Progress:
    """How all questions of a set stand; shows itself as a cell's last line, or when printed."""

    summary: str
    verdicts: dict[str, Verdict]

    def __repr__(self) -> str:
        rows = [f"{SYMBOLS[verdict]} {question}" for question, verdict in self.verdicts.items()]
        return "\n".join([self.summary, *rows])

    def _repr_html_(self) -> str:
        outcomes = [Outcome(question, verdict) for question, verdict in self.verdicts.items()]
        rows = "".join(outcome._repr_html_() for outcome in outcomes)
        return f"<div><strong>{escape(self.summary)}</strong>{rows}</div>"


class Grader:
    """The public checks of one exercise set, and which of its questions have passed so far."""

    def __init__(self, slug: str, folder: Path):
        self.slug, self.folder = slug, folder
        self.suites: dict[str, Suite] = {
            path.stem: load(path.stem, path.read_text("utf8"))
            for path in sorted(folder.glob("*.py"))
        }
        self.verdicts: dict[str, Verdict] = {}

    def __repr__(self) -> str:
        return f"grader({self.slug!r}): {self.summary()}"

    @property
    def questions(self) -> list[str]:
        """The names of the questions, in order."""
        return list(self.suites)

    @no_type_check  # a checked call would put a frame between this one and the caller's
    def check(self, question: str, answers: dict[str, Any] | None = None) -> Outcome:
        """Check one answer in the caller's namespace (or in `answers`); show how it stands."""
        if question not in self.suites:
            raise ValueError(
                f"no question {question!r} in {self.slug}; there are: {', '.join(self.questions)}"
            )
        if answers is None:
            caller = sys._getframe(1)
            answers = {**caller.f_globals, **caller.f_locals}
        outcome = self._ask(self.suites[question], answers)
        show(outcome)
        return outcome

    def progress(self) -> "Progress":
        """How many questions have passed so far, and how each of them stands."""
        verdicts = {q: self.verdicts.get(q, "not started") for q in self.questions}
        return Progress(self.summary(), verdicts)

    def summary(self) -> str:
        """The progress line."""
        passed = sum(verdict == "passed" for verdict in self.verdicts.values())
        return f"{passed} of {len(self.suites)} questions passed"

    def _ask(self, suite: Suite, answers: dict[str, Any]) -> Outcome:
        results = [judge(case, suite.question, answers) for case in suite.cases]
        verdict = overall(results)
        self.verdicts[suite.question] = verdict
        said = [r.message for r in results if r.message and r.verdict == verdict]
        # the first is the likely cause; what later checks guess from its effects would mislead
        return Outcome(suite.question, verdict, said[:1], self.summary())


def overall(results: list[Result]) -> Verdict:
    """The verdict on a question: one failed check fails it, else a stub makes it "not started"."""
    verdicts = {result.verdict for result in results}
    for verdict in ("failed", "not started"):
        if verdict in verdicts:
            return verdict
    return "passed"


def grader(slug: str) -> Grader:
    """The grader of the exercise set `slug`, such as "05_attention"."""
    for folder in check_folders():
        if (folder / slug).is_dir() and slug:
            return Grader(slug, folder / slug)
    known = sorted({path.name for folder in check_folders() for path in folder.glob("[0-9]*_*")})
    raise ValueError(f"no exercise set {slug!r}; there are: {', '.join(known) or 'none installed'}")


def check_folders() -> Iterator[Path]:
    """Where public checks may lie: in a checkout, then inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "exercises" / "tests", package / "checks"):
        if folder.is_dir():
            yield folder


def show(outcome: Outcome) -> None:
    """Display `outcome`: HTML where a notebook can show it, text elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display

        both = {"text/html": outcome._repr_html_(), "text/plain": repr(outcome)}
        display(both, raw=True)
    else:
        print(outcome)
