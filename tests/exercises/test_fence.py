"""The fence stays up once it is up, so most is tried in a process of its own."""

import subprocess
import sys
import textwrap

import pytest

from minillm.exercises.fence import Fence


def fenced(code: str, box, hidden) -> subprocess.CompletedProcess:
    start = f"""
import os, sys
from minillm.exercises.fence import Fence
os.chdir({str(box)!r})
Fence({str(box)!r}, [{str(hidden)!r}]).raise_()
"""
    program = start + f"exec(compile({textwrap.dedent(code)!r}, '<cell 1>', 'exec'))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.fixture
def folders(tmp_path):
    box, hidden = tmp_path / "box", tmp_path / "hidden"
    box.mkdir()
    hidden.mkdir()
    (hidden / "answer.txt").write_text("12")
    (box / "link").symlink_to(hidden)
    return box, hidden


REFUSED = {
    "write outside": "open('../out.txt', 'w')",
    "append outside": "open('../out.txt', 'a')",
    "os.open outside": "import os; os.open('../out.txt', os.O_CREAT | os.O_WRONLY)",
    "remove": "import os; os.remove('../hidden/answer.txt')",
    "make a folder": "import os; os.mkdir('../new')",
    "remove a tree": "import shutil; shutil.rmtree('../hidden')",
    "read the hidden": "open('../hidden/answer.txt').read()",
    "read through a link": "open('link/answer.txt').read()",
    "list the hidden": "import os; os.listdir('../hidden')",
    "scan the hidden": "import os; os.scandir('link')",
    "fork": "import os; os.fork()",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "shell": "import os; os.system('true')",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "connect": "import socket; socket.socket().connect(('127.0.0.1', 9))",
    "resolve": "import socket; socket.getaddrinfo('localhost', 80)",
    "kill": "import os; os.kill(os.getppid(), 0)",
    "frame": "import sys; sys._getframe(0)",
    "frame through inspect": "import inspect; inspect.currentframe().f_back",
    "stack": "import inspect; inspect.stack()",
    "walk": "import traceback; list(traceback.walk_stack(None))",
    "objects": "import gc; gc.get_objects()",
    "trace": "import sys; sys.settrace(lambda *_: None)",
    "generator frame": "(x for x in []).gi_frame",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_refused(code, folders):
    box, hidden = folders
    done = fenced(code, box, hidden)
    assert "PermissionError" in done.stderr
    assert "while a submission is graded" in done.stderr
    assert (hidden / "answer.txt").read_text() == "12"
    assert sorted(p.name for p in box.parent.iterdir()) == ["box", "hidden"]


def test_allowed(folders):
    code = """
        import collections, inspect, json, os, random, tempfile
        open("own.txt", "w").write("x")
        assert open("own.txt").read() == "x"
        os.remove("own.txt")
        os.makedirs("a/b")
        open("/dev/null", "w").write("x")
        collections.namedtuple("Point", "x y")(1, 2)
        inspect.signature(json.dumps)
        inspect.getsource(json.dumps)
        import dataclasses, enum, logging, typing, warnings
        typing.NamedTuple("Pair", [("a", int)])(1)
        enum.Enum("Color", "RED BLUE")
        dataclasses.dataclass(type("Box", (), {"__annotations__": {"a": int}}))(1)
        logging.getLogger("x").warning("careful")
        warnings.warn("careful")
        os.environ["X"] = "1"
        import torch
        x = torch.ones(3, requires_grad=True)
        (x * x).sum().backward()
    """
    done = fenced(code, *folders)
    assert done.returncode == 0, done.stderr


def test_below_is_not_a_prefix_of_text():
    assert Fence.below("/a/b", "/a/b")
    assert Fence.below("/a/b/c", "/a/b")
    assert not Fence.below("/a/bc", "/a/b")
