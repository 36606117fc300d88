"""Grade a folder of notebooks: one process each, a table, and a page for every learner.

    python -m minillm.exercises.grade SUBMISSIONS [--out graded] [--set 05_attention]

Every `*.ipynb` below the folder is graded with the public and hidden checks of the set it names.
Whatever a submission does costs that submission points, never the run. `scores.csv`, `index.html`
and a page per submission are written below `--out`.
"""

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from minillm.exercises import report, sandbox, submissions
from minillm.exercises.suites import Suite, load

CHECKOUT = Path(__file__).resolve().parents[2]
CHECKS = CHECKOUT / "solutions" / "tests"


@dataclass
class Mark:
    """What one question earned, and what its checks said."""

    question: str
    points: float
    possible: float
    messages: list[str] = field(default_factory=list)


@dataclass
class Row:
    """What one submission earned; `status` says "graded" or why it is not."""

    name: str
    slug: str = ""
    status: str = "graded"
    marks: list[Mark] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    suspicious: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def score(self) -> float:
        """The sum of points."""
        return round(sum((mark.points for mark in self.marks), 0.0), 2)

    @property
    def possible(self) -> float:
        """The sum of points that a perfect submission gets."""
        return round(sum((mark.possible for mark in self.marks), 0.0), 2)


@dataclass(frozen=True)
class Grading:
    """Which checks to run, within which limits, and whether in a sandbox."""

    checks: Path = CHECKS
    slug: str = ""
    limits: sandbox.Limits = field(default_factory=sandbox.Limits)
    boxed: bool = True

    @property
    def sets(self) -> list[str]:
        """The exercise sets there are checks for."""
        return sorted(path.name for path in self.checks.iterdir() if path.is_dir())

    def sources(self, slug: str) -> dict[str, str]:
        """The text of a set's check files by question."""
        paths = sorted((self.checks / slug).glob("*.py"))
        return {path.stem: path.read_text("utf8") for path in paths}

    def all(self, folder: Path, jobs: int = 2) -> Iterator[Row]:
        """Grade every notebook below `folder`, `jobs` at a time, and yield rows in order."""
        paths = list(submissions.find(folder))
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(lambda path: self.one(path, str(path.relative_to(folder))), paths)

    def one(self, path: Path, name: str) -> Row:
        """Grade one notebook; nothing that is wrong with it escapes as an exception."""
        start, row = time.monotonic(), Row(report.clean(name))
        try:
            limit = self.limits.notebook
            submission = submissions.read(path, self.sets, slug=self.slug, limit=limit)
            row.slug, row.suspicious = submission.slug, submission.suspicious
            self._judge(submission, row)
        except submissions.Unreadable as error:
            row.status = report.clean(str(error))
        except Exception as error:
            row.status = report.clean(f"could not be graded: {type(error).__name__}: {error}"[:300])
            row.marks = [Mark(mark.question, 0.0, mark.possible) for mark in row.marks]
        row.seconds = round(time.monotonic() - start, 1)
        return row

    def _judge(self, submission: submissions.Submission, row: Row) -> None:
        sources = self.sources(submission.slug)
        suites = {question: load(question, source) for question, source in sources.items()}
        row.marks = [Mark(question, 0.0, suite.points) for question, suite in suites.items()]
        secret = secrets.token_hex(16)
        job = {
            "secret": secret,
            "cells": submission.cells,
            "checks": sources,
            "hidden": [str(self.checks), str(CHECKOUT / "solutions")],
            "cell_seconds": self.limits.cell_seconds,
            "memory": self.limits.memory,
            "files": self.limits.files,
        }
        ended = sandbox.run(json.dumps(job).encode(), self.limits, boxed=self.boxed)
        settle(row, suites, list(messages(ended.said, secret)), ended)


def messages(said: bytes, secret: str) -> Iterator[dict]:
    """The worker's own messages among what came through its output."""
    for line in said.split(b"\n"):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict) and message.get("secret") == secret:
            yield message


def settle(row: Row, suites: dict[str, Suite], said: list[dict], ended: sandbox.Ended) -> None:
    """Turn a worker's messages into points; one that tampered with the checks gets none."""
    marks = {mark.question: mark for mark in row.marks}
    flags, cell, complete = [], 0, False
    for message in said:
        cell, complete = message.get("cell", cell), complete or "end" in message
        row.errors = row.errors or [report.clean(error) for error in message.get("errors", [])]
        flags += message.get("flags", [])
        mark = marks.get(message.get("question"))
        if mark:
            cases = suites[mark.question].cases
            earned = zip(cases, message["passed"], strict=True)
            worth = (suites[mark.question].worth(c) for c, ok in earned if ok)
            mark.points = round(sum(worth, 0.0), 6)  # five fifths are one, in floats too
            mark.messages = [report.clean(text) for text in message["messages"]]
    if flags:
        row.status = (
            "tampered with the checks: " + report.clean("; ".join(sorted(set(flags))))[:300]
        )
        for mark in row.marks:
            mark.points = 0.0
    elif ended.stopped:
        row.status = f"stopped after code cell {cell}: {ended.stopped}"
    elif not complete:
        row.status = f"ended by itself in or after code cell {cell} (exit code {ended.code})"


def options(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    limits = sandbox.Limits()
    parser = argparse.ArgumentParser(prog="grade", description=__doc__.splitlines()[0])
    parser.add_argument("submissions", type=Path, help="folder with notebooks, at any depth")
    parser.add_argument("--out", type=Path, default=Path("graded"), help="default: graded")
    parser.add_argument("--set", default="", help="default: what each notebook names")
    parser.add_argument("--checks", type=Path, default=CHECKS, help="default: solutions/tests")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--seconds", type=float, default=limits.seconds, help="for one submission")
    parser.add_argument("--no-sandbox", action="store_true", help="do not use bubblewrap")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Grade, print a line per submission, write the table and the pages."""
    chosen = options(arguments)
    if not chosen.checks.is_dir():
        print(f"no checks in {chosen.checks}: run this in a checkout, or give --checks")
        return 2
    boxed = not chosen.no_sandbox and sandbox.works()
    print(report.SANDBOXED if boxed else report.UNBOXED)
    limits = sandbox.Limits(seconds=chosen.seconds)
    grading = Grading(chosen.checks.resolve(), chosen.set, limits, boxed)
    if chosen.set and chosen.set not in grading.sets:
        print(f"no set {chosen.set!r}; there are: {', '.join(grading.sets)}")
        return 2
    rows = []
    for row in grading.all(chosen.submissions, chosen.jobs):
        print(
            f"{row.name:40} {row.score:6g} of {row.possible:<6g} {row.seconds:6.1f} s  {row.status}"
        )
        rows.append(row)
    index = report.write(rows, chosen.out, boxed=boxed)
    print(f"{len(rows)} submissions: {index.with_name('scores.csv')} and {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
