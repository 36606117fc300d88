import subprocess
import sys

import pytest

from minillm.exercises import sandbox
from minillm.exercises.sandbox import Ended, Limits

needs_bubblewrap = pytest.mark.skipif(not sandbox.works(), reason="needs bubblewrap")


@pytest.fixture
def script(monkeypatch):
    """Run this Python code in the worker's place."""

    def run(code: str, *, boxed: bool = False, job: bytes = b"", **limits) -> Ended:
        whole = sandbox.command
        monkeypatch.setattr(sandbox, "command", lambda *a, **k: [*whole(*a, **k)[:-1], code])
        return sandbox.run(job, Limits(**limits), boxed=boxed)

    return run


def test_job_goes_in_and_words_come_out(script):
    ended = script("import sys; print(len(sys.stdin.buffer.read()))", job=b"x" * 5_000_000)
    assert ended == Ended(b"5000000\n", 0)


def test_a_worker_that_never_reads_is_no_trouble(script):
    assert script("print(1)", job=b"x" * 5_000_000).said == b"1\n"


def test_time_is_up(script):
    ended = script("import time; print('a', flush=True); time.sleep(60)", seconds=2)
    assert ended.said == b"a\n"
    assert "longer than 2 s" in ended.stopped
    assert ended.code == -9


def test_too_much_is_cut(script):
    ended = script("while True: print('x' * 10_000)", output=100_000)
    assert len(ended.said) == 100_000
    assert "too much" in ended.stopped


def test_children_end_with_the_worker(script, tmp_path):
    mark = tmp_path / "alive"
    code = f"""
import os, time
if os.fork() == 0:
    time.sleep(3)
    open({str(mark)!r}, "w").close()
print("started", flush=True)
time.sleep(60)
"""
    script(code, seconds=1)
    subprocess.run(["sleep", "3"], check=True)
    assert not mark.exists()


def test_exit_code_and_crash_are_told(script):
    assert script("import os; os._exit(7)").code == 7
    assert script("import os; os.abort()").code == -6


def test_environment_is_the_workers_own(script, monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "x")
    said = script("import os; print(sorted(os.environ)); print(os.environ['HOME'] == os.getcwd())")
    assert b"MY_PASSWORD" not in said.said
    assert said.said.endswith(b"True\n")


@needs_bubblewrap
def test_box_shows_python_and_nothing_else(script, tmp_path):
    (tmp_path / "secret").write_text("x")
    tests = sandbox.PACKAGE.parent / "tests"
    code = f"""
import os, minillm
assert not os.path.exists({str(tmp_path / "secret")!r})
assert not os.path.exists({str(tests)!r}), "the checkout is visible"
assert not os.path.exists("/etc/passwd")
assert len([p for p in os.listdir("/proc") if p.isdigit()]) < 5, "others' processes are visible"
open("mine", "w").write("x")
for place in ({str(sandbox.PACKAGE)!r}, "/usr", {sys.prefix!r}):
    try:
        open(place + "/mine", "w")
    except OSError:
        pass
    else:
        raise SystemExit(place + " is writable")
print("fine")
"""
    assert script(code, boxed=True).said == b"fine\n"


@needs_bubblewrap
def test_box_has_no_network_and_little_room(script):
    code = """
import socket
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except OSError as error:
    print(type(error).__name__)
try:
    for i in range(100):
        open(str(i), "wb").write(b"x" * 100_000)
except OSError as error:
    print(error.strerror)
print(socket.if_nameindex())
"""
    lines = script(code, boxed=True, files=1_000_000).said.decode().splitlines()
    assert lines == ["ConnectionRefusedError", "No space left on device", "[(1, 'lo')]"]


def test_without_bubblewrap_it_says_so(monkeypatch):
    sandbox.works.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert not sandbox.works()
    sandbox.works.cache_clear()


def test_paths_inside_shown_paths_are_not_shown_twice():
    shown = sandbox.visible()
    assert len(set(shown)) == len(shown)
    assert not [p for p in shown for q in shown if p.startswith(q + "/")]
    assert str(sandbox.PACKAGE.parent) not in shown
