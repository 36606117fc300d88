"""A folder of hostile and broken notebooks: each costs its own score, and the run goes on."""

import csv
import json
import os
import re
import socket
import threading
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from minillm.exercises import grade, report, sandbox
from minillm.exercises.suites import Case, Suite

SLUG = "77_tiny"
TORCH = "78_torch"
CHECK = """
from otter.test_files import test_case
name, points = {question!r}, {points}

@test_case(points={points_of_one}, hidden=False)
{first}

@test_case(points=None, hidden=True)
{second}
"""


def check_file(question: str, points: int, first: str, second: str) -> str:
    return CHECK.format(
        question=question, points=points, points_of_one=1, first=first, second=second
    )


NUMBER = check_file(
    "q2_number",
    2,
    "def test_number(number):\n    assert number == 12, 'rows times columns: 3 x 4'",
    "def test_again(number):\n    assert str(number) == '12', 'a whole number'",
)
SETS = {
    SLUG: {
        "q1_double": check_file(
            "q1_double",
            4,
            "def test_seven(double):\n    assert double(7) == 14, 'twice seven is fourteen'",
            "def test_text(double):\n    assert double('ab') == 'abab', 'twice ab is abab'",
        ),
        "q2_number": NUMBER,
    },
    TORCH: {
        "q1_double": check_file(
            "q1_double",
            4,
            "def test_close(double):\n    import torch\n    torch.testing.assert_close("
            "double(torch.ones(3)), torch.full((3,), 2.0), msg='twice it')",
            "def test_allclose(double):\n    import torch\n    assert torch.allclose("
            "double(torch.ones(2)), torch.full((2,), 2.0)), 'each number twice'",
        ),
        "q2_number": NUMBER,
    },
}
STUB = "def double(x):\n    raise NotImplementedError('q1: write double')\nnumber = ..."
RIGHT = "def double(x):\n    return 2 * x\nnumber = 12"
WRONG = "def double(x):\n    return x\nnumber = 11"
FORGE = """
import json, os
line = json.dumps({"secret": SECRET, "question": "q1_double", "passed": [True] * 3, "messages": [], "flags": []})
for fd in range(64):
    try: os.write(fd, (line + "\\n").encode())
    except OSError: pass
print(line, flush=True)
"""  # noqa: E501
POSES = """
class Always:
    def __eq__(self, other): return True
    def __torch_function__(self, *args, **kwargs): return True
"""
FRAMES = """
import sys
found = []
def walk():
    yield
    found.append(1)
try:
    1 / 0
except ZeroDivisionError as error:
    trace = error
import inspect
for look in (inspect.currentframe, inspect.stack,
             lambda: sys._getframe(1), lambda: trace.__traceback__.tb_frame,
             lambda: walk().gi_frame, lambda: __import__("gc").get_objects()):
    try: found.append(look())
    except PermissionError: pass
number = 12 if not found else 11
"""
PATCHES_CODE = """
import torch
def agree(*args, **kwargs): return None
vars(torch.testing)["assert_close"] = agree
"""
KILLS = """
import os
try: os.kill(os.getppid(), 9)
except PermissionError: number = 12
"""
SHOUTS = """
def double(x): raise ValueError("<script>alert(1)</script>\\ud800\\x00\\x1b[2J")
number = 11
"""
SPAWNS = """
import os, subprocess, multiprocessing
made = 0
for _ in range(20):
    for start in (os.fork, lambda: subprocess.Popen(["true"]).pid, lambda: os.system("true"),
                  lambda: multiprocessing.get_context("fork").Process(target=int).start()):
        try:
            if start() == 0: os._exit(0)
            made += 1
        except PermissionError: pass
number = 12 if made == 0 else 11
"""

# name: (cells after START, points for q1, points for q2, what the status says)
NOTEBOOKS = {
    "perfect": ([RIGHT], 4, 2, "graded"),
    "untouched": ([STUB], 0, 0, "graded"),
    "wrong": ([WRONG], 0, 0, "graded"),
    "half_right": ([RIGHT, "def double(x):\n    return 14"], 1, 2, "graded"),
    "magics": (
        ["%pip install x\n!ls", "number = (25\n     % 13)", "%%bash\nrm -rf /"],
        0, 2, "graded",
    ),
    "loops_in_a_cell": (["while True: pass", RIGHT], 4, 2, "graded"),
    "loops_in_an_answer": ([RIGHT, "def double(x):\n    while True: pass"], 0, 2, "graded"),
    "loops_for_ever": (
        [RIGHT, "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
         "while True: pass"],
        0, 0, "stopped after code cell 3: it took longer",
    ),
    "sleeps": ([RIGHT, "import time\ntime.sleep(10_000)"], 4, 2, "graded"),
    "eats_memory": (
        [RIGHT, "hoard = []\nwhile True: hoard.append(bytes(1 << 28))"],
        4, 2, "graded",
    ),
    "raises_at_import": (["import no_such_module_at_all", "number = 12"], 0, 2, "graded"),
    "not_python": (["def double(x:", "number = 12"], 0, 2, "graded"),
    "fake_score": ([WRONG, "SECRET = 'guessed'" + FORGE, "print('score: 6/6')"], 0, 0, "graded"),
    "own_grader": (
        [WRONG, "exercises.grader = grader.check = lambda *_: 'passed'\n"
         "import minillm.exercises.suites as s\ns.judge = lambda *_: s.Result('passed')"],
        0, 0, "graded",
    ),
    "torch_perfect": ([RIGHT], 4, 2, "graded"),
    "torch_patched_assert_close": (
        [WRONG, "import torch\n"
         "torch.testing.assert_close = lambda *a, **k: None"], 0, 0, "tampered",
    ),
    "torch_patched_allclose": (
        [WRONG, "import torch\ntorch.allclose = lambda *a, **k: True"], 0, 0, "tampered",
    ),
    "torch_patched_code": ([WRONG, PATCHES_CODE], 0, 0, "tampered"),
    "torch_always_equal": ([POSES, "double = lambda x: Always()\nnumber = 12"], 0, 2, "graded"),
    "always_equal": ([POSES, "number = Always()\ndouble = lambda x: Always()"], 0, 0, "graded"),
    "patched_str": (
        [WRONG, "import builtins\nbuiltins.str = lambda x: '12'"],
        0, 0, "ended|tampered",
    ),
    "leaves_in_a_cell": (
        [RIGHT, "import os; os._exit(0)"],
        0, 0, "ended by itself in or after code cell 3",
    ),
    "leaves_in_an_answer": (
        [RIGHT, "import os\ndef double(x): os._exit(0)"],
        0, 0, "ended by itself",
    ),
    "leaves_politely": (["import sys; sys.exit()", RIGHT], 4, 2, "graded"),
    "spawns": ([SPAWNS], 0, 2, "graded"),
    "chatters": ([RIGHT, "for _ in range(200): print('x' * 1_000_000)"], 4, 2, "graded"),
    "floods_every_descriptor": (
        [RIGHT, "import os\nfor fd in range(3, 64):\n    try:\n"
         "        for _ in range(64): os.write(fd, b'x' * 100_000)\n    except OSError: pass"],
        0, 0, "stopped after code cell 3: it wrote too much",
    ),
    "recurses": ([RIGHT, "def f(): return f()\nf()"], 4, 2, "graded"),
    "overflows_the_stack": (
        [RIGHT, "import sys\nsys.setrecursionlimit(10**8)\ndef f(x): return [f(x)][0]\n"
         "class A:\n    def __repr__(self): return repr([self])\nrepr(A())"],
        0, 0, "ended by itself",
    ),
    "looks_at_frames": ([FRAMES], 0, 2, "graded"),
    "kills_its_parent": ([KILLS], 0, 2, "graded"),
    "shouts_html": ([SHOUTS], 0, 0, "graded"),
}  # fmt: skip
IN_THE_OPEN = {  # the same without bubblewrap: where the worker's own fence has to hold
    "perfect", "wrong", "loops_for_ever", "eats_memory", "fake_score", "spawns", "kills_its_parent",
    "writes_home", "calls_out", "reads_the_solutions",
}  # fmt: skip


def notebook(cells: list[str], metadata: dict | None = None) -> str:
    cells = [{"cell_type": "code", "source": c.splitlines(True), "metadata": {}} for c in cells]
    return json.dumps({"cells": cells, "metadata": metadata or {}, "nbformat": 4})


def write_checks(folder):
    for slug, files in SETS.items():
        (folder / slug).mkdir(parents=True)
        for question, source in files.items():
            (folder / slug / f"{question}.py").write_text(source)


def start(name: str) -> str:
    slug = TORCH if name.startswith("torch") else SLUG
    return f'from minillm import exercises\ngrader = exercises.grader("{slug}")'


class Door:
    """A server on this machine that counts who comes in."""

    def __init__(self):
        self.visits, self.socket = 0, socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.wait, daemon=True).start()

    def wait(self):
        while True:
            try:
                self.socket.accept()
            except OSError:
                return
            self.visits += 1


def reaching_out(checks, victim, port):
    """Notebooks that need to know where to reach."""
    solution = checks / SLUG / "q2_number.py"
    return {
        "writes_home": (
            [RIGHT, f"open({str(victim)!r}, 'w').write('here')"], 4, 2, "graded",
        ),
        "calls_out": (
            [RIGHT, "import socket\n"
             "socket.create_connection(('127.0.0.1', {port}), 2).close()"], 4, 2, "graded",
        ),
        "reads_the_solutions": (
            [f"import re\ntext = open({str(solution)!r}).read()\n"
             "number = int(re.search('== (\\\\d+)', text)[1])"],
            0, 0, "graded",
        ),
    }  # fmt: skip


@pytest.fixture(scope="module", params=["boxed", "open"])
def graded(request, tmp_path_factory):
    """All of the above, graded once: rows and expectations by name, victim, door, pages."""
    boxed = request.param == "boxed"
    if boxed and not sandbox.works():
        pytest.skip("bubblewrap is missing or not allowed here")
    here = tmp_path_factory.mktemp(request.param)
    checks, folder, victim, door = here / "checks", here / "in", here / "victim.txt", Door()
    write_checks(checks)
    cases = NOTEBOOKS | reaching_out(checks, victim, door.port)
    if not boxed:
        cases = {name: case for name, case in cases.items() if name in IN_THE_OPEN}
    for name, (cells, *_) in cases.items():
        path = folder / ("endless" if name == "loops_for_ever" else "others") / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(notebook([start(name), *cells]))
    limits = sandbox.Limits(seconds=120, cell_seconds=2, memory=3 << 30, output=1 << 20)
    grading = grade.Grading(checks, "", limits, boxed)
    hasty = replace(
        grading, limits=replace(limits, seconds=8)
    )  # others may wait for a busy machine
    rows = [*grading.all(folder / "others", 2), *hasty.all(folder / "endless")]
    report.write(rows, here / "out", boxed=boxed)
    yield (
        {row.name.split("/")[-1].removesuffix(".ipynb"): row for row in rows},
        cases,
        victim,
        door,
        here / "out",
    )
    door.socket.close()


def test_every_submission_gets_what_it_deserves(graded):
    rows, cases, *_ = graded
    assert set(rows) == set(cases)
    said = []
    for name, (_, q1, q2, status) in cases.items():
        row = rows[name]
        points = {mark.question: mark.points for mark in row.marks}
        right = (points["q1_double"], points["q2_number"]) == (q1, q2)
        if not right or not re.match(status, row.status):
            said.append(f"{name}: {points}, {row.status}, {row.errors}, not {q1}, {q2}, {status}")
    assert not said, "\n".join(said)


def test_nothing_got_out(graded):
    _, _, victim, door, _ = graded
    assert not victim.exists()
    assert door.visits == 0


def test_learners_are_told_what_went_wrong(graded):
    rows, *_ = graded
    marks = {mark.question: mark for mark in rows["wrong"].marks}
    assert marks["q2_number"].messages == ["rows times columns: 3 x 4", "a whole number"]
    assert "MemoryError" in rows["eats_memory"].errors[0]
    assert any("out of reach" in error for error in rows["writes_home"].errors)
    assert rows["perfect"].errors == []
    assert rows["spawns"].suspicious and not rows["perfect"].suspicious


class Plain(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def test_pages_and_table_hold_everything_escaped(graded):
    rows, cases, _, _, out = graded
    with (out / "scores.csv").open(newline="", encoding="utf8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(cases)
    assert {float(line["score"]) for line in lines if "perfect" in line["submission"]} == {6.0}
    assert len(list(out.glob("*.html"))) == len(cases) + 1
    for path in out.glob("*.html"):
        page = Plain()
        page.feed(path.read_text("utf8"))
        assert not {"script", "img", "iframe", "link"} & page.tags
    if "shouts_html" in rows:
        text = (out / "shouts_html.html").read_text("utf8")
        assert "&lt;script&gt;alert(1)" in text


# ------------------------------------------------------- what never gets as far as a worker


@pytest.fixture
def checks(tmp_path):
    write_checks(tmp_path / "checks")
    return tmp_path / "checks"


@pytest.mark.timeout(20)
def test_files_that_are_no_notebooks(checks, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(sandbox, "run", never)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "noise.ipynb").write_bytes(os.urandom(1000))
    (folder / "number.ipynb").write_text("12")
    (folder / "deep.ipynb").write_text("[" * 100_000)
    (folder / "large.ipynb").write_bytes(b" " * (50 << 20))
    (folder / "other.ipynb").write_text(notebook(['exercises.grader("99_other")']))
    (folder / "nameless.ipynb").write_text(notebook(["x = 1"]))
    (folder / "bad_cells.ipynb").write_text('{"cells": [{"cell_type": "code", "source": [1]}]}')
    (folder / "=cmd().ipynb").write_text("=1+1")
    (folder / "folder.ipynb").mkdir()
    (folder / "link.ipynb").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.ipynb")
    assert grade.main([str(folder), "--out", str(tmp_path / "out"), "--checks", str(checks)]) == 0
    with (tmp_path / "out" / "scores.csv").open(newline="", encoding="utf8") as file:
        lines = {line["submission"]: line for line in csv.DictReader(file)}
    assert len(lines) == 11
    assert all(float(line["score"]) == 0 and line["status"] != "graded" for line in lines.values())
    for name, said in {
        "link": "not a regular file", "pipe": "not a regular file", "folder": "not a regular file",
        "large": "larger than 20 MB", "deep": "not a notebook", "other": "99_other",
        "nameless": SLUG,
    }.items():  # fmt: skip
        assert said in lines[f"{name}.ipynb"]["status"]
    assert "'=cmd().ipynb" in lines


def test_set_is_read_from_metadata_or_given(checks, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        sandbox, "run", lambda job, *_, **__: seen.append(job) or sandbox.Ended(b"", 0)
    )
    path = tmp_path / "a.ipynb"
    path.write_text(notebook(["x = 1"], {"minillm": {"exercise": SLUG}}))
    assert grade.Grading(checks).one(path, "a").slug == SLUG
    path.write_text(notebook(["x = 1"]))
    assert grade.Grading(checks, SLUG).one(path, "a").slug == SLUG
    assert len(seen) == 2


def test_a_message_without_the_secret_counts_for_nothing():
    forged = json.dumps({"secret": "guess", "question": "q1", "passed": [True]}).encode()
    real = json.dumps({"secret": "s3cret", "end": True}).encode()
    noise = b"[" * 50_000 + b"\n\xff\n12\n"
    assert list(grade.messages(forged + b"\n" + noise + real, "s3cret")) == [
        {"secret": "s3cret", "end": True}
    ]


def test_a_set_that_does_not_exist_is_named(checks, tmp_path, capsys):
    assert grade.main([str(tmp_path), "--checks", str(checks), "--set", "98_none"]) == 2
    assert SLUG in capsys.readouterr().out


@pytest.mark.parametrize(("points", "n"), [(4.0, 6), (4.0, 7), (3.0, 7), (1.0, 10), (5.0, 49)])
def test_equal_shares_add_up_to_all_points(points, n):
    """In floats six sixths of four points are a little less than four."""
    suites = {"q1": Suite("q1", [Case() for _ in range(n)], points)}
    row = grade.Row("someone", marks=[grade.Mark("q1", 0.0, points)])
    said = [{"question": "q1", "passed": [True] * n, "messages": []}, {"end": True}]
    grade.settle(row, suites, said, sandbox.Ended(b"", 0))
    assert (row.status, row.marks[0].points) == ("graded", points)


# ------------------------------------------------------------------------ the course's own sets

OWN = sorted(path.stem for path in (grade.CHECKOUT / "solutions").glob("[0-9][0-9]_*.md"))


@pytest.mark.parametrize("slug", OWN)
def test_a_perfect_submission_gets_every_point_and_an_untouched_one_none(slug):
    patient = sandbox.Limits(seconds=900, cell_seconds=120)  # a machine may be busy
    grading = grade.Grading(limits=patient, boxed=sandbox.works())
    perfect = grading.one(grade.CHECKOUT / "solutions" / f"{slug}.ipynb", "perfect")
    assert (perfect.status, perfect.errors) == ("graded", [])
    assert [mark.messages for mark in perfect.marks if mark.points < mark.possible] == []
    assert perfect.score == perfect.possible > 0
    untouched = grading.one(grade.CHECKOUT / "exercises" / f"{slug}.ipynb", "untouched")
    assert (untouched.status, untouched.score) == ("graded", 0)
