"""Every command in README.md is run: here, or by the line of .ci/run that this file checks."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.strip().splitlines()
]


def make(*words: str, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess:
    # MAKEFLAGS: these tests themselves run under `make test`.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(
        ["make", *words], cwd=cwd, env=env, text=True, capture_output=True, timeout=300, **options
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The files git would carry, as they are now, with this checkout's environment."""
    copy = tmp_path_factory.mktemp("clone") / "minillm"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for environment in (".venv", ".venv-book"):
        (copy / environment).symlink_to(ROOT / environment)
    subprocess.run(["make", "-t", ".venv/ready", ".venv-book/ready"], cwd=copy, check=True)
    return copy


def run_by_ci(command: str) -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf8").splitlines()
    assert command in lines, f".ci/run no longer runs `{command}`"


def git_clone(command: str) -> None:
    url = re.search(r"url: (\S+)", (ROOT / "_config.yml").read_text("utf8"))[1]
    assert command == f"git clone {url} && cd {url.rsplit('/', 1)[1]}"


def serve(clone: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = ROOT / "book" / "_build" / "html" / "index.html"
    assert page.exists(), "run `make book` first (`make test` does)"
    server = subprocess.Popen(
        ["make", "serve", f"PORT={port}"],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    assert b"book/intro.html" in answer.read()
                return
            except OSError:
                time.sleep(0.1)
        pytest.fail("make serve did not answer within ten seconds")
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def grade(clone: Path) -> None:
    submissions = clone / "submissions"
    submissions.mkdir()
    shutil.copy(ROOT / "exercises" / "05_attention.ipynb", submissions / "untouched.ipynb")
    done = make("grade", "SUBMISSIONS=submissions", cwd=clone)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (clone / "graded" / "scores.csv").read_text("utf8")
    assert "untouched" in table
    assert list((clone / "graded").glob("*.html")), "no page for the learner"


def sync(clone: Path) -> None:
    config = clone / "_config.yml"
    text = config.read_text("utf8")
    url = re.search(r"url: (\S+)", text)[1]
    config.write_text(text.replace(url, "https://github.com/somebody/their-course"), "utf8")
    done = make("sync", cwd=clone)
    assert done.returncode == 0, done.stdout + done.stderr
    for notebook in [*clone.glob("chapters/*.ipynb"), *clone.glob("exercises/*.ipynb")]:
        cells = json.loads(notebook.read_text("utf8"))["cells"]
        setup = "".join(next(c for c in cells if c["cell_type"] == "code")["source"])
        assert "somebody/their-course" in setup, notebook.name
        assert url not in setup, notebook.name


def pip_install(clone: Path) -> None:
    """The wheel that pip would make from this checkout holds the library and the checks."""
    out = clone / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(out), str(clone)],
        check=True,
    )
    (wheel,) = out.glob("minillm-*.whl")
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "minillm/nn/attention.py" in names
    assert re.search(r"minillm/checks/05_attention/q1_\w+\.py", names)


HOW = {
    "git clone": git_clone,
    "make book": run_by_ci,
    "make test": run_by_ci,
    "make serve": serve,
    "pip install": pip_install,
    "make grade": grade,
    "make sync": sync,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_works(command, clone):
    how = next((f for start, f in HOW.items() if command.startswith(start)), None)
    assert how, f"no test runs `{command}`: add one to HOW"
    how(command if how in (run_by_ci, git_clone) else clone)


def test_links_of_the_front_files_hold():
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text("utf8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (ROOT / target).exists(), f"{name} links to {target}, which does not exist"
