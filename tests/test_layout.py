"""The house rules that a linter does not know."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "minillm").rglob("*.py"))
BANNED = {"utils.py", "common.py", "helpers.py", "misc.py"}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_file_is_small_and_named_for_a_concept(path):
    lines = path.read_text("utf8").splitlines()
    assert len(lines) <= 350, f"{len(lines)} lines: split it by concept"
    assert path.name not in BANNED
    assert len(path.relative_to(ROOT).parts) <= 3, "sub-packages are one level deep"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_fit_on_a_screen(path):
    tree = ast.parse(path.read_text("utf8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) else node.body
        length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
        assert length <= 40, f"{node.name} has {length} lines below its docstring"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_file_has_tests_in_the_mirrored_folder(path):
    if path.name in ("__init__.py", "__main__.py"):
        return
    package = path.parent.name
    folder = ROOT / "tests" / package
    if (folder / f"test_{path.name}").exists():
        return
    defined = [
        node.name
        for node in ast.parse(path.read_text("utf8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    names = re.compile("|".join(rf"\b{name}\b" for name in defined))
    users = [p for p in folder.glob("test_*.py") if names.search(p.read_text("utf8"))]
    assert users, f"tests/{package}/ has no test_{path.name}, and no test there uses {defined}"


def test_importing_is_quiet_and_touches_no_device():
    packages = sorted(p.parent.name for p in (ROOT / "minillm").glob("*/__init__.py"))
    code = "\n".join(
        [
            "import importlib, socket, sys",
            "def refuse(*_): raise RuntimeError('network at import')",
            "socket.socket.connect = refuse",
            *(f"importlib.import_module('minillm.{name}')" for name in packages),
            "import torch",
            "assert not torch.cuda.is_initialized()",
            "assert 'triton' not in sys.modules, 'triton imported without being asked for'",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
