"""`execute.py` stores whole, repeatable notebooks or nothing; `sync.py` keeps outputs."""

import json

import execute
import nbformat
import pytest
import sync
from course import Course

HEAD = """---
jupytext:
  formats: md:myst,ipynb
kernelspec: {display_name: Python 3, language: python, name: python3}
minillm: {modules: []}
---

# A page

:::{tip}
**Measured cost**:
:::

"""
FIGURE = """from minillm.viz import figure, subplots
fig, ax = subplots(width=2, height=1)
ax.plot([0, 1])
figure(fig, alt="Line plot: a straight line from 0 to 1")"""


def chapter(folder, *cells):
    blocks = "".join(f"```{{code-cell}} ipython3\n{cell}\n```\n\nText.\n\n" for cell in cells)
    path = folder / "chapters" / "05_attention.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEAD + blocks, encoding="utf8")
    return path


@pytest.fixture
def place(tmp_path):
    """A repository with one chapter planned, none written."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "curriculum.yml").write_text(
        "front: []\nback: []\nparts:\n- title: Part\n  chapters:\n"
        "  - {number: 5, slug: attention, title: Attention, about: About, modules: []}\n"
    )
    url = "https://github.com/SOMEONE/else"
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {url}, branch: main}}\n")
    return tmp_path


def test_a_second_run_gives_the_same_bytes_figures_included(place):
    path = chapter(place, "import os; print(os.environ['MINILLM_SCALE'])", FIGURE)
    cost = execute.run(path, "full")
    first = path.with_suffix(".ipynb").read_bytes()
    assert b'"full\\n"' in first
    assert b"data:image/png" in first
    assert cost["seconds"] > 0
    assert 20 < cost["peak_mib"] < 4000
    execute.run(path, "full")
    assert path.with_suffix(".ipynb").read_bytes() == first


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print('late', file=sys.stderr)", "stderr"),
        ("object()", "memory address"),
        ("import matplotlib; print(matplotlib.__file__)", "path of this machine"),
        ("import matplotlib.pyplot as plt; plt.plot([1]); plt.show()", "without alt text"),
        ("print('x y ' * 10_000)", "bytes"),
        ("import os; os._exit(1)", "kernel"),
    ],
)
def test_a_refused_chapter_leaves_the_old_notebook(place, monkeypatch, cell, why):
    monkeypatch.setattr(execute, "MAX_BYTES", 30_000)
    path = chapter(place, "print(1)", cell)
    target = path.with_suffix(".ipynb")
    target.write_text("old")
    with pytest.raises(execute.Refused, match=why):
        execute.run(path, "full")
    assert target.read_text() == "old"
    assert {p.name for p in path.parent.iterdir()} == {target.name, path.name}


def test_cells_for_a_gpu_keep_what_they_printed_on_one(place, monkeypatch):
    monkeypatch.setattr(execute, "has_gpu", lambda: True)
    path = chapter(place, "print(1)", ":tags: [gpu]\n\nprint('as if on a GPU')")
    execute.run(path, "full")
    first = path.with_suffix(".ipynb").read_bytes()
    assert b"as if on a GPU\\n" in first
    monkeypatch.setattr(execute, "has_gpu", lambda: False)
    execute.run(path, "full")
    assert path.with_suffix(".ipynb").read_bytes() == first


def test_hash_covers_code_and_tags_but_neither_text_nor_setup(place):
    def hashed(text):
        import jupytext

        return execute.source_hash(jupytext.reads(text, fmt="md:myst"))

    text = chapter(place, "print(1)").read_text("utf8")
    tagged = text.replace("print(1)", ":tags: [gpu]\n\nprint(1)")
    assert hashed(text) == hashed(text.replace("Text.", "Other text."))
    assert hashed(text) == hashed(sync.with_setup(text, "import this"))
    assert len({hashed(text), hashed(text.replace("(1)", "(2)")), hashed(tagged)}) == 3


def test_sync_carries_text_into_the_notebook_and_keeps_outputs(place):
    path = chapter(place, "print(40 + 2)")
    execute.run(path, "full")
    path.write_text(path.read_text("utf8").replace("Text.", "Better text."), "utf8")
    files, problems = sync.planned_chapter(Course(place), path)
    notebook = nbformat.reads(files[path.with_suffix(".ipynb")], 4)
    assert problems == []
    assert any("Better text." in c.source for c in notebook.cells)
    assert notebook.cells[-2].outputs[0].text == "42\n"
    assert "SOMEONE/else" in notebook.cells[1].source
    assert "colab.research" in files[path]


def test_sync_does_not_touch_a_notebook_whose_code_changed(place):
    path = chapter(place, "print(1)")
    execute.run(path, "full")
    path.write_text(path.read_text("utf8").replace("print(1)", "print(2)"), "utf8")
    files, problems = sync.planned_chapter(Course(place), path)
    assert path.with_suffix(".ipynb") not in files
    assert problems == ["05_attention's code changed: make execute CH=05"]


def test_setup_cell_is_put_in_once_and_replaced_later():
    text = HEAD + "```{code-cell} ipython3\nprint(1)\n```\n"
    once = sync.with_setup(text, "a\nb")
    assert sync.with_setup(once, "a\nb") == once
    changed = sync.with_setup(once, "c")
    assert "a\nb" not in changed
    assert changed.index("# A page") < changed.index("minillm-setup") < changed.index("print(1)")
    assert changed.count("print(1)") == 1


def test_costs_are_kept_unless_they_moved(tmp_path):
    path = tmp_path / "costs.json"
    cost = {"seconds": 40.3, "peak_mib": 812.0, "device": None, "threads": 2}
    execute.record("05_x", "full", cost, path)
    first = path.read_bytes()
    execute.record("05_x", "full", cost | {"seconds": 44.0}, path)
    assert path.read_bytes() == first
    execute.record("05_x", "full", cost | {"seconds": 80.0}, path)
    execute.record("05_x", "full", cost | {"device": "NVIDIA X", "peak_device_mib": 5000.0}, path)
    kept = json.loads(path.read_text())["05_x"]["full"]
    assert kept["cpu"]["seconds"] == 80
    assert kept["cpu"]["device"] == "CPU, 2 threads"
    assert kept["gpu"]["device"] == "NVIDIA X"


def test_cost_line_says_what_was_measured_and_what_was_not(place):
    course = Course(place)
    execute.record(
        "05_attention",
        "full",
        {"seconds": 40.0, "peak_mib": 1024.0, "device": None, "threads": 2},
        place / "book" / "data" / "costs.json",
    )
    line = sync.cost_line(course, "05_attention")
    assert line.startswith("CPU, 2 threads: 40 s, 1.0 GiB of memory; GPU (T4 or larger): not meas")
    assert sync.with_cost("- **Measured cost**: old\nrest", "new") == (
        "- **Measured cost**: new\nrest"
    )
