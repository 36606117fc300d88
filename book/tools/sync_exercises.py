"""Make the learners' notebooks and the checks from the master each exercise set is written in.

    python book/tools/sync_exercises.py [--check] [NN ...]

`solutions/NN_slug.md` (otter-grader's format, plain functions as tests) becomes

- `exercises/NN_slug.ipynb`: what a learner opens; stubs instead of solutions, no hidden tests;
- `exercises/tests/NN_slug/*.py`: the public checks, one file a question;
- `solutions/NN_slug.ipynb`: the same notebook with the solutions in place;
- `solutions/tests/NN_slug/*.py`: public and hidden checks, what `make grade` runs.

The setup cell (from `setup_cell()` of `sync.py`) and otter's configuration are added here, so a
master holds only what is particular to it. The same master gives the same bytes. Each learner's
notebook keeps a digest of what it was made from and of what was made: `--check` compares digests,
without running otter, and names what is stale.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_raw_cell

ROOT = Path(__file__).resolve().parents[2]
OTTER = """# ASSIGNMENT CONFIG
init_cell: false
export_cell: false
check_all_cell: false
run_tests: false
tests:
  files: true
  ok_format: false
"""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


def masters(root: Path = ROOT, numbers: list[str] | None = None) -> list[Path]:
    """The masters of all sets, or of those with these numbers or slugs ("05", "05_attention")."""
    found = sorted((root / "solutions").glob("[0-9][0-9]_*.md"))
    wanted = set(numbers or ())
    return [m for m in found if not wanted or {m.stem, m.stem[:2]} & wanted]


def targets(master: Path) -> list[Path]:
    """The two notebooks and two folders that are made from `master`."""
    root, slug = master.parents[1], master.stem
    return [
        root / "exercises" / f"{slug}.ipynb",
        root / "exercises" / "tests" / slug,
        root / "solutions" / f"{slug}.ipynb",
        root / "solutions" / "tests" / slug,
    ]


def sync(master: Path, setup: str) -> bool:
    """Make everything that comes from `master`, unless it is in step; say whether it was made."""
    if not stale(master, setup):
        return False
    slug = master.stem
    learner, public, solved, hidden = targets(master)
    with tempfile.TemporaryDirectory(prefix="minillm-assign-") as folder:
        made = assign(master, setup, Path(folder))
        for kind, checks in (("student", public), ("autograder", hidden)):
            shutil.rmtree(checks, ignore_errors=True)
            checks.mkdir(parents=True)
            for path in sorted((made / kind / "tests").glob("*.py")):
                shutil.copyfile(path, checks / path.name)
        write(made / "autograder" / f"{slug}.ipynb", solved, {"exercise": slug})
        stamp = {"exercise": slug, "made_from": digest_of_source(master, setup)}
        write(made / "student" / f"{slug}.ipynb", learner, stamp)
    stamp["made"] = digest_of_targets(master)
    write(learner, learner, stamp)
    return True


def stale(master: Path, setup: str) -> str:
    """Why what comes from `master` is not in step with it; empty if it is."""
    learner, *others = targets(master)
    for path in (learner, *others):
        if not path.exists():
            return f"{path.name} is missing"
    try:
        stamp = json.loads(learner.read_text("utf8"))["metadata"]["minillm"]
    except (ValueError, KeyError):
        return f"{learner.name} has no stamp"
    if stamp.get("made_from") != digest_of_source(master, setup):
        return f"{master.name} (or the setup cell) was edited"
    if stamp.get("made") != digest_of_targets(master):
        return f"something made from {master.name} was edited by hand"
    return ""


def assign(master: Path, setup: str, folder: Path) -> Path:
    """Run `otter assign` on `master` in `folder` and return where its output lies."""
    notebook = jupytext.read(master)
    notebook.metadata = NotebookNode(kernelspec=METADATA["kernelspec"])
    notebook.cells.insert(0, new_raw_cell(OTTER))
    title = next(i for i, c in enumerate(notebook.cells) if c.cell_type == "markdown")
    if setup:
        cell = new_code_cell(setup, metadata={"tags": ["minillm-setup", "remove-cell"]})
        notebook.cells.insert(title + 1, cell)
    source = folder / f"{master.stem}.ipynb"
    nbformat.write(notebook, source)
    command = [sys.executable, "-m", "otter", "assign", source.name, "made"]
    process = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    made = folder / "made"
    if process.returncode or not (made / "student" / "tests").is_dir():
        said = (process.stdout + process.stderr)[-3000:]
        raise SystemExit(f"otter assign could not read {master}:\n{said}")
    return made


def write(source: Path, target: Path, stamp: dict) -> None:
    """Write the notebook at `source` to `target` so that equal cells give equal bytes."""
    notebook = nbformat.read(source, 4)
    notebook.metadata = NotebookNode(**METADATA, minillm=stamp)
    notebook.nbformat_minor = 5
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = without_marks(cell.source)
        key = hashlib.sha256((cell.cell_type + cell.source).encode()).hexdigest()[:8]
        seen[key] = seen.get(key, 0) + 1
        cell.id = key if seen[key] == 1 else f"{key}-{seen[key]}"
    nbformat.validate(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf8")


def without_marks(source: str) -> str:
    """A cell without otter's marks and prompts, which it leaves in its solution notebook."""
    kept, prompt = [], False
    for line in source.splitlines():
        prompt = prompt or line.rstrip().endswith("# BEGIN PROMPT")
        if not prompt and not re.fullmatch(r"\s*# (BEGIN|END) SOLUTION.*", line):
            kept.append(re.sub(r"\s*# SOLUTION$", "", line))
        prompt = prompt and not line.rstrip().endswith("# END PROMPT")
    return "\n".join(kept).rstrip()


def digest_of_source(master: Path, setup: str) -> str:
    """A short hash of everything the output depends on: master, setup cell, this file."""
    return digest([master.read_bytes(), setup.encode(), Path(__file__).read_bytes()])


def digest_of_targets(master: Path) -> str:
    """A short hash of what was made: cells of both notebooks, names and text of all checks."""
    parts = []
    for path in targets(master):
        if path.is_dir():
            for file in sorted(path.glob("*.py")):
                parts += [file.name.encode(), file.read_bytes()]
        else:
            cells = json.loads(path.read_text("utf8"))["cells"]
            parts.append(json.dumps(cells, sort_keys=True).encode())
    return digest(parts)


def digest(parts: list[bytes]) -> str:
    """A short hash of byte strings; line endings do not count."""
    whole = hashlib.sha256()
    for part in parts:
        part = part.replace(b"\r\n", b"\n")
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:16]


def setup_cell(root: Path = ROOT) -> str:
    """The first code cell of every notebook, as `sync.py` makes it from `_config.yml`."""
    sys.path.insert(0, str(root / "book" / "tools"))
    try:
        from sync import setup_cell as made
    except ImportError:
        return ""
    finally:
        sys.path.pop(0)
    return made()


def main() -> int:
    """Make, or with --check only compare, the sets whose numbers are given (default: all)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="such as 05 or 05_attention; default: all sets")
    parser.add_argument("--check", action="store_true", help="change nothing, fail if out of step")
    options = parser.parse_args()
    setup, failed = setup_cell(), False
    for master in masters(numbers=options.numbers):
        if options.check:
            why = stale(master, setup)
            print(f"{master.stem}: {why or 'in step'}")
            failed |= bool(why)
        else:
            print(f"{master.stem}: {'made' if sync(master, setup) else 'in step'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
