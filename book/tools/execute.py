"""Run chapters and store their outputs: `chapters/NN_slug.md` becomes `chapters/NN_slug.ipynb`.

    python book/tools/execute.py 05 [02_tokenization ...] [--scale full|quick]

A cell that raises, an output that would not be the same again or that a reader could not use stops
the chapter with a message; the old notebook then stays as it was. The notebook carries a hash of
the code that made its outputs, so that a test can tell when the text has moved on. What the run
cost is kept in `book/data/costs.json`; the chapter's line `**Measured cost**:` is filled from it.
"""

import argparse
import functools
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parents[2]
COSTS = ROOT / "book" / "data" / "costs.json"
SETUP_TAG = "minillm-setup"
MAX_BYTES = 4_000_000
KEPT_METADATA = ("kernelspec", "language_info", "jupytext", "minillm")
LIVE_ONLY = (
    "application/vnd.jupyter.widget-view+json",
    "application/vnd.jupyter.widget-state+json",
)
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
PROBE = """
def _probe():
    import json, re, resource, sys
    try:
        status = open("/proc/self/status").read()
        kib = int(re.search(r"VmHWM:\\s*(\\d+)", status).group(1))
    except OSError:
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kib = kib // 1024 if sys.platform == "darwin" else kib
    torch = sys.modules.get("torch")
    found = {"peak_mib": kib / 1024, "device": None, "threads": None}
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            found["device"] = torch.cuda.get_device_name()
            found["peak_device_mib"] = torch.cuda.max_memory_reserved() / 2**20
    print(json.dumps(found))
_probe()
"""


class Refused(Exception):
    """A chapter whose outputs may not be stored; the message says why and what to do."""


def source_hash(notebook: NotebookNode) -> str:
    """Hash what is executed: code cells in order with their tags, less the generated setup cell.

    Tags that only say how a page shows a cell (`hide-input`, `remove-cell`, …) do not count.
    """
    parts = []
    for cell in notebook.cells:
        shown = ("hide-", "remove-", "scroll-")
        tags = sorted(t for t in cell.metadata.get("tags", []) if not t.startswith(shown))
        if cell.cell_type == "code" and SETUP_TAG not in tags:
            parts.append(f"{cell.source}\0{tags}")
    return hashlib.sha256("\1".join(parts).encode()).hexdigest()[:16]


def stable_ids(notebook: NotebookNode) -> None:
    """Give every cell an id made from its content, so that equal cells give equal bytes."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        key = hashlib.sha256((cell.cell_type + cell.source).encode()).hexdigest()[:8]
        seen[key] = seen.get(key, 0) + 1
        cell["id"] = key if seen[key] == 1 else f"{key}-{seen[key]}"


def tidy(notebook: NotebookNode) -> None:
    """Drop what differs from run to run: timings, widget state, versions."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            for mime in LIVE_ONLY:
                output.get("data", {}).pop(mime, None)
    kept = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    kept["language_info"] = LANGUAGE
    notebook.metadata = NotebookNode(sorted(kept.items()))
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)


def dumps(notebook: NotebookNode) -> str:
    """Return the notebook as it is stored."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf8")
    os.replace(part, path)


def execute(chapter: Path, scale: str) -> tuple[NotebookNode, dict]:
    """Run a chapter in a fresh kernel; return its notebook with outputs and what the run cost."""
    notebook = jupytext.read(chapter)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    os.environ |= {"MINILLM_SCALE": scale, "PYTHONHASHSEED": "0", "TQDM_DISABLE": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(chapter.parent)}},
    )
    kept = Kept(chapter.with_suffix(".ipynb"))
    start = time.perf_counter()
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if "gpu" in cell.metadata.get("tags", []) and not has_gpu():
                kept.restore(cell)
                continue
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                raise Refused(f"cell {index} raised:\n{plain(str(error))}") from None
            except DeadKernelError:
                raise Refused(f"cell {index} killed the kernel (out of memory?)") from None
        cost = {"seconds": time.perf_counter() - start}
        probe = new_code_cell(PROBE)
        notebook.cells.append(probe)
        client.execute_cell(probe, len(notebook.cells) - 1)
        notebook.cells.pop()
    cost |= json.loads(probe.outputs[0].text)
    return notebook, cost


@functools.cache
def has_gpu() -> bool:
    """Whether cells tagged `gpu` can run here."""
    import torch

    return torch.cuda.is_available()


class Kept:
    """Outputs of an earlier run on a GPU, by the source of their cell."""

    def __init__(self, path: Path) -> None:
        try:
            cells = nbformat.read(path, 4).cells
        except (OSError, ValueError):  # none yet, or torn by a merge: it is about to be replaced
            cells = []
        self.cells = {cell.source: cell for cell in cells if cell.cell_type == "code"}

    def restore(self, cell: NotebookNode) -> None:
        """Give `cell` what it printed on a GPU, if it ever ran on one; else leave it without."""
        if before := self.cells.get(cell.source):
            cell.outputs, cell.execution_count = before.outputs, before.execution_count


def plain(text: str) -> str:
    """Return a traceback without terminal colors."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def complaints(notebook: NotebookNode, root: Path = ROOT) -> list[str]:
    """Say what is wrong with stored outputs: what readers could not see, or could not reproduce."""
    found = []
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = json.dumps([data.get(m) for m in data if m != "image/png"], ensure_ascii=False)
            text += output.get("text", "")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {index} writes to stderr: {output.text.strip()[:300]}")
            if "image/png" in data:
                found.append(f"cell {index} shows a picture without alt text; end it with figure()")
            if re.search(r"<[^<>]* at 0x[0-9a-f]{6,}>", text):
                found.append(f"cell {index} prints a memory address, which differs at every run")
            for place in (str(root), str(Path.home()), "/site-packages/", "/tmp/"):
                if len(place) > 1 and place in text:
                    found.append(f"cell {index} prints a path of this machine ({place})")
    return found


def run(chapter: Path, scale: str) -> dict:
    """Execute one chapter and store its notebook, or raise `Refused` and change nothing."""
    notebook, cost = execute(chapter, scale)
    tidy(notebook)
    stable_ids(notebook)
    notebook.metadata.setdefault("minillm", NotebookNode())["source"] = source_hash(notebook)
    wrong = complaints(notebook)
    if wrong:
        raise Refused("\n".join(wrong))
    text = dumps(notebook)
    if len(text.encode()) > MAX_BYTES:
        raise Refused(f"the notebook takes {len(text.encode()):,} bytes; at most {MAX_BYTES:,}")
    target = chapter.with_suffix(".ipynb")
    if scale != "full":  # only to look at: what is stored is what readers see, at full scale
        target = ROOT / "book" / "_build" / scale / target.name
    write_whole(target, text)
    return cost


def record(slug: str, scale: str, cost: dict, path: Path = COSTS) -> None:
    """Keep what a run cost; a new number replaces the old one only where it differs by a fifth."""
    costs = json.loads(path.read_text("utf8")) if path.exists() else {}
    kind = "gpu" if cost["device"] else "cpu"
    old = costs.setdefault(slug, {}).setdefault(scale, {}).get(kind, {})
    threads = cost["threads"] or 1
    cores = f"CPU, {threads} thread{'s' * (threads > 1)}"
    new = {"device": cost["device"] or cores}
    for key in ("seconds", "peak_mib", "peak_device_mib"):
        if cost.get(key) is not None:
            value = float(f"{cost[key]:.2g}") if cost[key] >= 1 else round(cost[key], 1)
            same = old.get("device") == new["device"] and key in old
            new[key] = old[key] if same and abs(value - old[key]) <= 0.2 * old[key] else value
    costs[slug][scale][kind] = new
    write_whole(path, json.dumps(costs, indent=1, sort_keys=True) + "\n")


def chapters(names: list[str], root: Path = ROOT) -> list[Path]:
    """Find chapters by number (05) or slug (05_attention); an unknown one is an error."""
    found = []
    for name in names:
        stem = Path(name).stem
        matches = [*root.glob(f"chapters/{stem}.md"), *root.glob(f"chapters/{stem}_*.md")]
        if not matches:
            raise SystemExit(f"no chapter {name!r} in chapters/; give a number such as 05")
        found += matches
    return found


def main() -> int:
    """Execute the chapters named on the command line; report each, and fail if one was refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="+", metavar="CHAPTER", help="05 or 05_attention")
    parser.add_argument("--scale", choices=("full", "quick"), default="full")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    import sync

    failed = False
    for chapter in chapters(options.chapters):
        try:
            sync.chapter(chapter)
            cost = run(chapter, options.scale)
        except Refused as refusal:
            print(f"{chapter.stem}: not stored.\n{refusal}", file=sys.stderr)
            failed = True
            continue
        record(chapter.stem, options.scale, cost)
        sync.chapter(chapter)
        print(f"{chapter.stem}: {cost['seconds']:.1f} s, peak {cost['peak_mib']:.0f} MiB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
