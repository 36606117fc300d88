import subprocess
import sys
from pathlib import Path

import pytest

from minillm.exercises import check, grader
from minillm.exercises.check import Grader, Outcome

CHECK = """
from otter.test_files import test_case
name, points = "{name}", 1

@test_case(points=None, hidden=False)
def test_it({answer}):
    assert {answer} == 12, "3 x 4, <b>not</b> 3 + 4"
"""
MORE = """
@test_case(points=None)
def test_again(rows, columns):
    assert rows + 1 == 13, "a second guess"
"""


@pytest.fixture
def tiny(tmp_path) -> Grader:
    folder = tmp_path / "77_tiny"
    folder.mkdir()
    for name, answer in (("q1_rows", "rows"), ("q2_columns", "columns")):
        (folder / f"{name}.py").write_text(CHECK.format(name=name, answer=answer))
    return Grader("77_tiny", folder)


def test_reads_the_callers_names_and_says_how_far_one_is(tiny, capsys):
    rows = 12
    assert tiny.check("q1_rows").passed
    assert capsys.readouterr().out == "✔ q1_rows: passed\n  1 of 2 questions passed\n"
    columns = 7
    assert not tiny.check("q2_columns").passed
    said = capsys.readouterr().out
    assert "✘ q2_columns: failed" in said
    assert "3 x 4" in said
    assert "1 of 2 questions passed" in said
    columns = 12
    tiny.check("q2_columns")
    assert "2 of 2 questions passed" in capsys.readouterr().out
    rows = 0
    tiny.check("q1_rows")
    assert tiny.summary() == "1 of 2 questions passed"
    assert repr(tiny.progress()) == "1 of 2 questions passed\n✘ q1_rows\n✔ q2_columns"
    assert rows != columns


def test_stub_and_missing_name_are_not_started(tiny, capsys):
    rows = ...
    outcome = tiny.check("q1_rows")
    assert outcome.verdict == "not started"
    assert "Traceback" not in capsys.readouterr().out
    assert tiny.check("q2_columns").messages == [
        "`columns` is not defined: run the cell above first"
    ]
    assert rows is ...


def test_only_the_first_diagnosis_is_told(tiny):
    (path,) = tiny.folder.glob("q1_*.py")
    path.write_text(path.read_text() + MORE)
    outcome = Grader("77_tiny", tiny.folder).check("q1_rows", {"rows": "12", "columns": 3})
    assert outcome.messages == ["3 x 4, <b>not</b> 3 + 4"]


def test_one_unset_value_is_named_and_hides_no_mistake(tiny):
    (path,) = tiny.folder.glob("q1_*.py")
    path.write_text(path.read_text() + MORE)
    grader = Grader("77_tiny", tiny.folder)
    unset = grader.check("q1_rows", {"rows": 12, "columns": ...})
    assert (unset.verdict, unset.messages) == ("not started", ["`columns` is still `...`"])
    assert grader.check("q1_rows", {"rows": 11, "columns": ...}).verdict == "failed"


def test_unknown_question_lists_the_questions(tiny):
    with pytest.raises(ValueError, match=r"q3_none.*q1_rows, q2_columns"):
        tiny.check("q3_none")


def test_unknown_set_lists_the_sets():
    with pytest.raises(ValueError, match=r"there are: .*05_attention"):
        grader("99_none")
    with pytest.raises(ValueError, match="no exercise set ''"):
        grader("")


def test_html_is_escaped_and_brings_its_own_contrast(tiny):
    html = tiny.check("q1_rows", {"rows": 7})._repr_html_()
    assert "&lt;b&gt;not&lt;/b&gt;" in html
    assert "color:inherit" in html
    assert "color:#fff" in html
    assert "1 of 2" not in html
    assert "0 of 2 questions passed" in html
    assert "q2_columns" in tiny.progress()._repr_html_()


@pytest.mark.parametrize("color", check.COLORS.values())
def test_badge_contrast(color):
    """White on the badge has a contrast of at least 4.5 to 1 (WCAG AA)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) >= 4.5


def test_notebook_shows_html_once(tiny):
    """In IPython the call displays by itself; the value of a cell's last line adds nothing."""
    code = f"""
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
with capture_output() as captured:
    shell.run_cell({check.__name__!r} and '''
from pathlib import Path
from minillm.exercises.check import Grader
grader = Grader("77_tiny", Path("{tiny_folder(tiny)}"))
rows = 12
grader.check("q1_rows")''')
shown = captured.outputs
assert len(shown) == 1, shown
assert "text/html" in shown[0].data and "text/plain" in shown[0].data, shown
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def tiny_folder(tiny: Grader) -> str:
    return tiny.folder.as_posix()


def test_installed_package_brings_its_checks(tmp_path, monkeypatch):
    """Without a checkout around it, `grader` finds `minillm/checks/<slug>/`."""
    package = tmp_path / "site" / "minillm"
    (package / "exercises").mkdir(parents=True)
    folder = package / "checks" / "77_tiny"
    folder.mkdir(parents=True)
    (folder / "q1_rows.py").write_text(CHECK.format(name="q1_rows", answer="rows"))
    monkeypatch.setattr(check, "__file__", str(package / "exercises" / "check.py"))
    assert grader("77_tiny").questions == ["q1_rows"]


def test_outcome_is_its_text():
    outcome = Outcome("q1", "failed", ["two\nlines"], "0 of 1 questions passed")
    assert repr(outcome) == "✘ q1: failed\n  two\n  lines\n  0 of 1 questions passed"


def test_every_public_check_in_the_checkout_loads():
    folders = [path for path in next(check.check_folders()).glob("[0-9]*_*") if path.is_dir()]
    assert folders
    for folder in folders:
        assert Grader(folder.name, Path(folder)).questions
