"""What a person writes and what is made from it belong together, and chapters keep their form."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import execute
import jupytext
import listings
import nbformat
import pytest
import sync
from course import LABEL, Course

ROOT = Path(__file__).resolve().parents[2]
COURSE = Course(ROOT)
WRITTEN = COURSE.written
CHAPTERS = pytest.mark.parametrize("chapter", WRITTEN, ids=[c.stem for c in WRITTEN])
NOTEBOOKS = sorted([*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("exercises/*.ipynb")])
# The sections of a chapter after the derivation, in order, and words that a title may use. Those
# of one group may change places: exploring a real model comes after loading it.
ANATOMY = (
    {"Does it match?": r"match|agree|equal"},
    {"Break it": r"break|without"},
    {"Explore": r"explore|play", "Cost": r"\bcosts?\b", "On real data": r"\breal\b"},
    {"Pitfalls and myth checks": r"pitfall|myth"},
    {"In the wild": r"in the wild"},
    {"Interview questions": r"^interview questions$"},
    {"Exercises": r"exercise"},
    {"Further reading": r"further reading"},
)


def text_of(chapter):
    return COURSE.text_of(chapter).read_text("utf8")


def code_cells(chapter):
    cells = jupytext.reads(text_of(chapter), fmt="md:myst").cells
    return [c.source for c in cells if c.cell_type == "code"]


def prose(chapter):
    """The text less its fenced blocks, so that a `#` comment is no heading."""
    return re.sub(r"^(`{3,}).*?^\1\s*$", "", text_of(chapter), flags=re.DOTALL | re.MULTILINE)


def test_everything_generated_is_in_step():
    done = subprocess.run(
        [sys.executable, "book/tools/sync.py", "--check"], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@CHAPTERS
def test_stored_outputs_belong_to_the_text(chapter):
    stored = nbformat.read(COURSE.text_of(chapter).with_suffix(".ipynb"), 4)
    source = jupytext.reads(text_of(chapter), fmt="md:myst")
    stamp = stored.metadata["minillm"]["source"]
    assert stamp == execute.source_hash(source), f"make execute CH={chapter.number:02d}"
    assert stamp == execute.source_hash(stored)
    for cell in stored.cells:
        if cell.cell_type == "code" and "gpu" not in cell.metadata.get("tags", []):
            assert cell.execution_count, f"never executed: {cell.source[:60]}"


@CHAPTERS
def test_stored_outputs_are_fit_for_readers(chapter):
    stored = nbformat.read(COURSE.text_of(chapter).with_suffix(".ipynb"), 4)
    assert execute.complaints(stored) == []
    assert COURSE.text_of(chapter).with_suffix(".ipynb").stat().st_size <= execute.MAX_BYTES


@CHAPTERS
def test_listings_are_the_librarys_present_source(chapter):
    stored = nbformat.read(COURSE.text_of(chapter).with_suffix(".ipynb"), 4)
    assert not listings.refresh(stored), "run `make sync`"


@CHAPTERS
def test_anatomy_is_complete_and_in_order(chapter):
    headings = re.findall(r"^## (.+)$", prose(chapter), re.MULTILINE)
    assert len(headings) >= 12, f"{len(headings)} sections: {headings}"
    place = 0
    for points in ANATOMY:
        found = []
        for point, words in points.items():
            rest = [i for i in range(place, len(headings)) if re.search(words, headings[i], re.I)]
            assert rest, f"no section for {point!r} after {headings[:place]} in {headings}"
            found.append(rest[0])
        assert len(set(found)) == len(points), f"{list(points)} need a section each: {headings}"
        place = max(found) + 1


@CHAPTERS
def test_header_card_comes_first_and_states_the_measured_cost(chapter):
    head = prose(chapter).split("\n## ")[0]
    assert re.search(r"^:::+ ?\{", head, re.MULTILINE), "no header card before the first section"
    line = re.search(r"\*\*Measured cost\*\*: (.+)", head)
    assert line, "the header card needs a line that starts with **Measured cost**:"
    assert re.search(r"\d+ (s|min), [\d.]+ GiB", line.group(1)), line.group(1)
    assert f"chapters/{chapter.stem}.ipynb" in line.group(1), "no Colab link"


@CHAPTERS
def test_cells_are_short(chapter):
    for source in code_cells(chapter):
        lines = [line for line in source.splitlines() if line.strip()]
        assert len(lines) < 20, f"{len(lines)} lines in the cell that starts {lines[0]!r}"


def public_names():
    """Names that a sub-package hands on, or where it hands on none, those its modules define."""
    found = {}
    for path in sorted((ROOT / "minillm").glob("*/__init__.py")):
        lines = ast.parse(path.read_text("utf8")).body
        names = [a.name for node in lines if isinstance(node, ast.ImportFrom) for a in node.names]
        for module in [] if names else sorted(path.parent.glob("[a-z]*.py")):
            nodes = ast.parse(module.read_text("utf8")).body
            defined = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
            names += [node.name for node in defined if node.name[0] != "_"]
        found |= dict.fromkeys(names, path.parent.name)
    assert {"attention_map", "train_bpe", "MultiHeadAttention", "GPT"} <= set(found)
    return found


@CHAPTERS
def test_no_chapter_redefines_a_public_name(chapter):
    library = public_names()
    for source in code_cells(chapter):
        code = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
        for node in ast.parse(code or "pass").body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                home = library.get(node.name)
                assert home is None, f"{node.name} is minillm.{home}'s: give it another name"


@pytest.mark.parametrize("module", COURSE.modules)
def test_every_module_has_exactly_one_home(module):
    homes = COURSE.homes[module]
    assert len(homes) == 1, f"{module}: {homes}; front matter, or book/curriculum.yml before that"


@CHAPTERS
def test_a_chapter_is_the_home_of_modules_that_exist(chapter):
    from course import front_matter

    listed = front_matter(COURSE.text_of(chapter))["minillm"]["modules"]
    missing = [m for m in listed if m not in COURSE.modules and not m.endswith(".*")]
    assert not missing, f"{missing} are no modules of minillm"


@CHAPTERS
def test_a_chapter_answers_its_questions_once(chapter):
    labels = LABEL.findall(text_of(chapter))
    assert sorted(labels) == sorted(chapter.questions), "labels such as (q-10)= before a ### line"
    section = text_of(chapter).split("## Interview questions")[1].split("\n## ")[0]
    assert sorted(LABEL.findall(section)) == sorted(labels)
    answers = re.findall(r"^\([qiack]-\d\d\)=\n(### [^\n]+\n.*?)(?=^\(|\Z)", section, re.S | re.M)
    assert len(answers) == len(labels), "each label stands on its own line before its question"
    assert all(len(answer.split()) > 25 for answer in answers), "an answer is a few sentences"


def test_the_curriculum_has_forty_chapters_and_each_question_once():
    assert [c.number for c in COURSE.chapters] == list(range(1, 41))
    ids = [label for c in COURSE.chapters for label in c.questions]
    assert len(ids) == len(set(ids))
    kinds = {kind: sum(label.startswith(kind) for label in ids) for kind in "qiack"}
    assert kinds == {"q": 30, "i": 42, "a": 7, "c": 44, "k": 15}


def test_interview_page_lists_every_question_and_links_the_answered():
    page = (ROOT / "book" / "interview.md").read_text("utf8")
    for chapter in COURSE.chapters:
        for label in chapter.questions:
            assert page.count(f"({label})") == 1
            assert (f"<{label}>`" in page) == (label in COURSE.answers)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_first_code_cell_is_the_setup_cell(notebook):
    cells = [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    assert cells[0].source == sync.setup_cell(ROOT)
    assert sum("pip install" in c.source for c in cells) == 1


def test_colab_links_open_notebooks_that_exist():
    texts = [*ROOT.glob("chapters/*.md"), *ROOT.glob("book/*.md"), ROOT / "README.md"]
    found = 0
    for path in [*texts, *NOTEBOOKS]:
        for link in re.findall(r"https://colab\.research[^\s)\"'\\]+", path.read_text("utf8")):
            start = sync.colab_url(COURSE, "")
            assert link.startswith(start), f"{path.name}: {link} is not this repository"
            assert (ROOT / link.removeprefix(start)).exists(), f"{path.name}: {link}"
            found += 1
    assert found >= len(WRITTEN)


def test_every_page_is_in_the_contents():
    toc = (ROOT / "book" / "_toc.yml").read_text("utf8")
    pages = [*ROOT.glob("book/*.md"), *ROOT.glob("chapters/*.md"), *ROOT.glob("exercises/*.ipynb")]
    names = [p.relative_to(ROOT).with_suffix("").as_posix() for p in pages]
    assert [name for name in names if not re.search(rf": {name}$", toc, re.MULTILINE)] == []
