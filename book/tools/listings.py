"""Bring the listings in stored notebooks up to the library's present source.

    python book/tools/listings.py

What `minillm.viz.show` prints is a copy of the source, not a result of the run; when a docstring
changes, the outputs of a ten-minute chapter need not be made again for it.
"""

import importlib
import re

import execute
import nbformat

from minillm.viz import show

LISTING = re.compile(r"`(minillm[\w.]+)`, from ")


def named(path: str) -> object:
    """Return `package.module.Class.method`."""
    parts = path.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            found = getattr(found, attribute)
        return found
    raise ValueError(f"{path} is not in the library; the cell that shows it has to change")


def refresh(notebook: nbformat.NotebookNode) -> int:
    """Replace the listings that are out of date; return how many there were."""
    stale = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/markdown", "")
            if match := LISTING.match(text):
                now = show(named(match[1]))._repr_markdown_()
                stale += now != text
                output["data"]["text/markdown"] = now
    return stale


if __name__ == "__main__":
    for path in sorted((execute.ROOT / "chapters").glob("*.ipynb")):
        notebook = nbformat.read(path, 4)
        if stale := refresh(notebook):
            execute.write_whole(path, execute.dumps(notebook))
            print(f"{path.name}: {stale} listings renewed")
