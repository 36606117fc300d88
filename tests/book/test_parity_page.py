"""The parity page shows what was recorded, all of it, and every model of the library is there."""

import ast
import json

import pages
import parity
import pytest
from course import ROOT, Course

DATA = json.loads((ROOT / "book" / "data" / "parity.json").read_text("utf8"))
MODELS = sorted((ROOT / "minillm" / "models").glob("[a-z]*.py"))


def row(test="test_a.py", model="a", oracle="A", version="torch 1", check="logits", error=1e-15):
    return {
        "test": test, "model": model, "oracle": oracle, "version": version, "torch": "2",
        "machine": "x86_64", "check": check, "max_error": error,
    }  # fmt: skip


@pytest.fixture
def page_of(tmp_path):
    """page_of(rows): the page made of these rows, for a course that lies elsewhere."""

    def made(rows):
        (tmp_path / "book" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "_config.yml").write_text("repository:\n  url: https://example.org/course\n")
        (tmp_path / "book" / "data" / "parity.json").write_text(
            json.dumps({"command": "measure", "rows": rows})
        )
        return parity.page(Course(tmp_path))

    return made


def cells(page, start):
    """The cells of the one row that starts with `start`."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_summary_counts_checks_and_takes_the_largest_error(page_of):
    rows = [row(check=c, error=e) for c, e in (("loss", 3e-16), ("logits", 2.5e-15), ("x", 0.0))]
    brute = row(test="test_b.py", model="b", oracle="brute force", version="")
    page = page_of([*rows, brute]).split("## ")[0]
    assert cells(page, "a") == ["`A`", "torch 1", "3", r"$2.5 \cdot 10^{-15}$"]
    assert cells(page, "b") == ["brute force", "", "1", r"$1.0 \cdot 10^{-15}$"]


def test_a_family_s_table_has_every_model_and_check(page_of):
    rows = [row(error=4e-15), row(check="loss", error=0.0), row(model="b", error=2e-13)]
    section = page_of([*rows, row(oracle="B", error=5e-15)]).split("## `a`")[1]
    assert "blob/main/tests/parity/test_a.py" in section
    assert cells(section, "check") == ["a", "b"]
    assert cells(section, "logits") == [r"$5.0 \cdot 10^{-15}$", r"$2.0 \cdot 10^{-13}$"]
    assert cells(section, "loss") == ["0", ""], "0 was measured, an empty cell was not"


def test_more_models_than_checks_go_down_the_page(page_of):
    section = page_of([row(model=m) for m in "abc"]).split("## `a`")[1]
    assert cells(section, "model") == ["logits"]
    assert cells(section, "c") == [r"$1.0 \cdot 10^{-15}$"]


def test_nothing_recorded_no_page(tmp_path):
    assert parity.page(Course(tmp_path)) is None


def test_the_book_has_the_page_with_every_row():
    course = Course(ROOT)
    text = pages.planned(course)[ROOT / "book" / "parity.md"]
    assert "file: book/parity\n" in pages.contents(course)
    for one in DATA["rows"]:
        section = text.split(f"## {parity.title(one['test'])}\n")[1].split("\n## ")[0]
        assert any(one["check"] in line for line in section.splitlines() if line.startswith("|"))
        assert f"| {one['model']} | " in text
    for one in DATA["rows"]:  # an oracle that rounds has to be said so, in brackets
        assert one["max_error"] < (0.05 if "(" in one["check"] else 1e-6), one


def models_of(path):
    """The classes of a file that are fitted or run: converters and configurations are not."""
    classes = [n for n in ast.parse(path.read_text("utf8")).body if isinstance(n, ast.ClassDef)]
    methods = {c.name: {f.name for f in c.body if isinstance(f, ast.FunctionDef)} for c in classes}
    return [name for name, own in methods.items() if own & {"forward", "fit"}]


# what families hand their parts to is proved with each of them
SKELETONS = ("causal_lm",)


@pytest.mark.parametrize(
    "path", [p for p in MODELS if p.stem not in SKELETONS], ids=lambda p: p.stem
)
def test_every_model_is_in_the_table(path):
    """Some parity test imports from the file, and that test left rows."""
    if not models_of(path):
        return
    recorded = {one["test"] for one in DATA["rows"]}
    users = [
        test.name
        for test in (ROOT / "tests" / "parity").glob("test_*.py")
        if f"minillm.models.{path.stem} import" in test.read_text("utf8")
    ]
    assert users, f"no file of tests/parity imports minillm.models.{path.stem}"
    assert recorded & set(users), f"run MINILLM_RECORD=1 pytest tests/parity/{users[0]}"
