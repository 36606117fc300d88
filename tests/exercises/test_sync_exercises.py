"""What is made from the masters is in step with them; a change in either is seen."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MASTERS = sorted((ROOT / "solutions").glob("[0-9][0-9]_*.md"))


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "book" / "tools" / "sync_exercises.py"
    spec = importlib.util.spec_from_file_location("sync_exercises", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def setup(tool):
    return tool.setup_cell()


@pytest.mark.parametrize("master", MASTERS, ids=lambda path: path.stem)
def test_in_step(tool, setup, master):
    assert tool.stale(master, setup) == "", "run `make sync`"


@pytest.fixture
def copy(tool, setup, tmp_path):
    """A checkout with one set, just made."""
    (tmp_path / "solutions").mkdir()
    master = tmp_path / "solutions" / MASTERS[0].name
    shutil.copyfile(MASTERS[0], master)
    assert tool.sync(master, setup)
    return master


def test_making_again_gives_the_same_bytes(tool, setup, copy):
    for made, stored in zip(tool.targets(copy), tool.targets(MASTERS[0]), strict=True):
        if made.is_dir():
            names = sorted(path.name for path in stored.glob("*.py"))
            assert sorted(path.name for path in made.iterdir()) == names
            for name in names:
                assert (made / name).read_bytes() == (stored / name).read_bytes()
        else:
            assert made.read_bytes() == stored.read_bytes()
    assert not tool.sync(copy, setup), "made although in step"


def test_every_change_is_seen(tool, setup, copy):
    learner, public, solved, hidden = tool.targets(copy)
    check = next(public.glob("*.py"))
    for path in (learner, solved, check, next(hidden.glob("*.py"))):
        before = path.read_bytes()
        path.write_bytes(before.replace(b"import ", b"import  ", 1))
        assert "by hand" in tool.stale(copy, setup), path
        path.write_bytes(before)
    assert tool.stale(copy, setup) == ""
    assert "edited" in tool.stale(copy, setup + "\n")
    check.unlink()
    assert "by hand" in tool.stale(copy, setup)
    copy.write_text(copy.read_text("utf8") + "\nMore.\n", encoding="utf8")
    assert "edited" in tool.stale(copy, setup)


@pytest.mark.parametrize("master", MASTERS, ids=lambda path: path.stem)
def test_learners_see_neither_solutions_nor_hidden_checks(tool, setup, master):
    learner, public, solved, hidden = tool.targets(master)
    text = "".join("".join(c["source"]) for c in json.loads(learner.read_text("utf8"))["cells"])
    assert not re.search(r"(BEGIN|END) (SOLUTION|PROMPT|TESTS|QUESTION)|# HIDDEN|# SOLUTION", text)
    assert setup in text
    for path in public.glob("*.py"):
        assert "hidden=True" not in path.read_text("utf8")
    assert any("hidden=True" in path.read_text("utf8") for path in hidden.glob("*.py"))
    cells = json.loads(solved.read_text("utf8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    assert "NotImplementedError" not in code


def test_numbers_choose_sets(tool):
    first = MASTERS[0]
    assert tool.masters(numbers=[first.stem[:2]]) == [first]
    assert tool.masters(numbers=[first.stem]) == [first]
    assert tool.masters(numbers=["97"]) == []
