"""Each set in a real kernel: untouched it runs to the end, not started; solved, it passes."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
SLUGS = [path.stem for path in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.md"))]
CHECK = re.compile(r'^grader\.check\("(\w+)"\)$')


def run(path: Path, folder: Path) -> dict[str, list]:
    """Run a notebook where there is no checkout around; return what each check displayed."""
    notebook = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    checks = {}
    for cell in notebook.cells:
        match = CHECK.match(cell.source)
        if match:
            checks[match[1]] = cell.outputs
    return checks


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize(
    ("folder", "verdict"), [("exercises", "not started"), ("solutions", "passed")]
)
def test_in_a_kernel(slug, folder, verdict, tmp_path):
    checks = run(ROOT / folder / f"{slug}.ipynb", tmp_path)
    assert len(checks) >= 4
    for question, outputs in checks.items():
        assert [output.output_type for output in outputs] == ["display_data"], question
        assert f"{question}: {verdict}" in outputs[0].data["text/plain"]
        assert verdict in outputs[0].data["text/html"]
    passed = len(checks) if verdict == "passed" else 0
    assert f"{passed} of {len(checks)} questions passed" in outputs[0].data["text/plain"]
