"""Bring everything that is made from something else back in step.

    python book/tools/sync.py [--check]

- the setup cell of every chapter and exercise, from `_config.yml`'s `repository.url`;
- each chapter's line `**Measured cost**: …`, from `book/data/costs.json` (write the line with
  nothing after the colon; the rest is filled in, with the link that opens the chapter in Colab);
- the text cells of `chapters/NN_slug.ipynb` from `chapters/NN_slug.md`; outputs stay, and where
  code cells differ nothing is touched: that chapter has to be executed again;
- the map between the markers of `book/intro.md`, `book/interview.md`, `book/reference/*.md`, and
  `book/_toc.yml`, from `book/curriculum.yml` and the files that exist;
- `book/parity.md`, from `book/data/parity.json`;
- `book/families.md`, from `book/data/families.yml` and `book/references.bib`;
- the exercises, by `sync_exercises.py`.

With `--check` nothing is written: whatever is out of step is named, and the exit status is 1.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).parent))
import execute
import pages
from course import FRONT_MATTER, ROOT, Course

SETUP_CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?:(?!^```\n)[^\n]*\n)*?:tags: \[minillm-setup[^\n]*\n.*?^```\n",
    re.DOTALL | re.MULTILINE,
)
COST_LINE = re.compile(r"^((?:[-*] )?\*\*Measured cost\*\*:)[^\n]*$", re.MULTILINE)
TITLE = re.compile(r"^# [^\n]+\n", re.MULTILINE)


def setup_cell(root: Path = ROOT) -> str:
    """Return the first code cell of every notebook: install the package where it is missing."""
    return (
        "import importlib.util\n"
        'if importlib.util.find_spec("minillm") is None:  # in Colab, for example\n'
        f'    %pip install -q "minillm[chapters] @ git+{Course(root).url}"'
    )


def with_setup(text: str, setup: str) -> str:
    """Return a chapter's text with the generated setup cell after its title."""
    block = f"```{{code-cell}} ipython3\n:tags: [minillm-setup, remove-cell]\n\n{setup}\n```\n"
    if SETUP_CELL.search(text):
        return SETUP_CELL.sub(lambda _: block, text, count=1)
    body = FRONT_MATTER.match(text)
    title = TITLE.search(text, body.end() if body else 0)
    if not title:
        return text
    return f"{text[: title.end()]}\n{block}{text[title.end() :]}"


def with_cost(text: str, line: str) -> str:
    """Return a chapter's text with what was measured after `**Measured cost**:`."""
    return COST_LINE.sub(lambda match: f"{match.group(1)} {line}", text, count=1)


def cost_line(course: Course, stem: str) -> str:
    """Say in words what a full run of the chapter cost where it was measured."""
    path = course.root / "book" / "data" / "costs.json"
    costs = json.loads(path.read_text("utf8")) if path.exists() else {}
    measured = costs.get(stem, {}).get("full", {})
    parts = [f"{_cost(measured[kind])}" for kind in ("cpu", "gpu") if kind in measured]
    if "gpu" not in measured:
        parts.append("GPU (T4 or larger): not measured yet")
    link = colab_url(course, f"chapters/{stem}.ipynb")
    return f"{'; '.join(parts)}. [Open in Colab]({link})"


def _cost(one: dict) -> str:
    """Say one measurement: `CPU, 2 threads: 41 s, 0.8 GiB`."""
    seconds = one["seconds"]
    time = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    text = f"{one['device']}: {time}, {one['peak_mib'] / 1024:.1f} GiB of memory"
    if "peak_device_mib" in one:
        text += f" and {one['peak_device_mib'] / 1024:.1f} GiB on the device"
    return text


def colab_url(course: Course, path: str) -> str:
    """Return the address that opens a notebook of the repository in Colab."""
    where = course.url.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{where}/blob/{course.branch}/{path}"


def paired(text: str, stored: NotebookNode) -> NotebookNode | None:
    """Return the notebook of a chapter's text with the stored outputs; None if its code changed."""
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    stamp = stored.metadata.get("minillm", {}).get("source")
    if not stamp == execute.source_hash(notebook) == execute.source_hash(stored):
        return None
    new, old = _code(notebook), _code(stored)
    for cell, before in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    setup = {c.execution_count for c in stored.cells if execute.SETUP_TAG in _tags(c)}
    for cell in notebook.cells:
        if execute.SETUP_TAG in _tags(cell):
            cell.execution_count = next(iter(setup), None)
    notebook.metadata = NotebookNode(stored.metadata | notebook.metadata)
    notebook.metadata.setdefault("minillm", NotebookNode())["source"] = stamp
    execute.tidy(notebook)
    execute.stable_ids(notebook)
    return notebook


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    return [c for c in cells if execute.SETUP_TAG not in _tags(c)]


def planned_chapter(course: Course, path: Path) -> tuple[dict[Path, str], list[str]]:
    """Return what a chapter's two files should hold, and what cannot be brought in step here."""
    text = with_setup(path.read_text("utf8"), setup_cell(course.root))
    text = with_cost(text, cost_line(course, path.stem))
    notebook = path.with_suffix(".ipynb")
    number = path.stem[:2]
    if not notebook.exists():
        return {path: text}, [f"{path.stem} was never executed: make execute CH={number}"]
    made = paired(text, nbformat.read(notebook, 4))
    if made is None:
        return {path: text}, [f"{path.stem}'s code changed: make execute CH={number}"]
    return {path: text, notebook: execute.dumps(made)}, []


def chapter(path: Path) -> None:
    """Bring one chapter's text and, where its code did not change, its notebook in step."""
    files, _ = planned_chapter(Course(), path)
    for target, text in files.items():
        if not target.exists() or target.read_text("utf8") != text:
            execute.write_whole(target, text)


def planned(course: Course) -> tuple[dict[Path, str], list[str]]:
    """Return every generated file's content, and what only an execution can bring in step."""
    files, problems = {}, []
    for one in course.written:
        made, wrong = planned_chapter(course, course.text_of(one))
        files |= made
        problems += wrong
    return files | pages.planned(course), problems


def main() -> int:
    """Write, or with --check only compare, everything that is generated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if out of step")
    check = parser.parse_args().check
    course = Course()
    files, problems = planned(course)
    for path, text in sorted(files.items()):
        if not path.exists() or path.read_text("utf8") != text:
            name = path.relative_to(ROOT)
            problems += [f"{name} is out of step: make sync"] if check else []
            if not check:
                execute.write_whole(path, text)
                print(f"wrote {name}")
    for path in sorted((ROOT / "book" / "reference").glob("*.md")):
        if path not in files:
            problems += [f"{path.name} documents no module: make sync"] if check else []
            if not check:
                path.unlink()
    problems += exercises(check)
    print("\n".join(problems) or "everything is in step")
    return int(bool(problems))


def exercises(check: bool) -> list[str]:
    """Make the exercises, or say which are out of step."""
    import sync_exercises

    problems, setup = [], setup_cell()
    for master in sync_exercises.masters():
        if not check:
            sync_exercises.sync(master, setup)
        elif why := sync_exercises.stale(master, setup):
            problems.append(f"exercises {master.stem}: {why}: make sync")
    return problems


if __name__ == "__main__":
    sys.exit(main())
