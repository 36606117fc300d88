"""Real test sets, as rows: what the course fine-tunes on and evaluates with.

They are the Arrow files of the asset `eval-suites`, read by pyarrow. Only the parts that the asset
has are there: mostly validation sets, so a chapter that trains splits one of them by itself.
"""

from pathlib import Path
from typing import Any

from minillm import assets

_FOLDERS = {
    "sst2": "glue/sst2",
    "rte": "glue/rte",
    "mrpc": "glue/mrpc",
    "cb": "super_glue/cb",
    "copa": "super_glue/copa",
    "arc-easy": "ai2_arc/ARC-Easy",
    "arc-challenge": "ai2_arc/ARC-Challenge",
    "boolq": "boolq/none",
    "commonsense-qa": "tau/commonsense_qa/none",
    "hellaswag": "hellaswag/none",
    "nq-open": "nq_open/none",
    "openbookqa": "openbookqa/main",
    "piqa": "piqa/plain_text",
    "sciq": "sciq/none",
    "social-iqa": "social_i_qa/none",
    "trivia-qa": "trivia_qa/rc.wikipedia.nocontext",
    "winogrande": "winogrande/winogrande_xl",
}
SUITES: tuple[str, ...] = tuple(_FOLDERS)
"""Names that `examples` knows, beside `mmlu/` and one of `mmlu_subjects()`."""


def examples(name: str, part: str = "validation") -> list[dict[str, Any]]:
    """Rows of a test set in the order of the file, each a dict; the first call downloads.

    `examples("mmlu/anatomy", "test")` reads a subject of MMLU (parts dev, validation, test).
    """
    root = Path(assets.fetch("eval-suites")) / "hf_datasets"
    if isinstance(name, str) and name.startswith("mmlu/"):
        folder = root / "hails" / "mmlu_no_train" / name.removeprefix("mmlu/")
    elif isinstance(name, str) and name in _FOLDERS:
        folder = root / _FOLDERS[name]
    else:
        raise ValueError(f"no test set is called {name!r:.60}; choose one of {', '.join(SUITES)}")
    files = sorted((folder / part).glob("*.arrow"))
    if not files:
        parts = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        raise ValueError(f"{name} has no part {part!r:.60}; it has {', '.join(parts) or 'none'}")
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError("reading Arrow files needs pyarrow: pip install pyarrow") from error
    rows: list[dict[str, Any]] = []
    for file in files:
        with pa.memory_map(str(file)) as source:
            rows += pa.ipc.open_stream(source).read_all().to_pylist()
    return rows


def mmlu_subjects() -> list[str]:
    """The 57 subjects of MMLU, sorted."""
    root = Path(assets.fetch("eval-suites")) / "hf_datasets" / "hails" / "mmlu_no_train"
    return sorted(path.name for path in root.iterdir() if path.is_dir())
