"""Shared by the parity tests: noise on every weight, and a record of the largest errors."""

import fcntl
import functools
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

import pytest
import torch

PARITY_JSON = Path(__file__).parents[2] / "book" / "data" / "parity.json"
RECORD = os.environ.get("MINILLM_RECORD") == "1"


@pytest.fixture
def perturb():
    """Add N(0, 0.3) to every parameter and floating buffer: default values hide mistakes.

    Constants that the config defines (causal masks, RoPE's frequencies, Gemma's √d) stay.
    """
    constants = ("attn.bias", "inv_freq", "rotary.frequencies", "embed_scale")

    def add_noise(model, seed):
        generator = torch.Generator().manual_seed(seed)
        frozen = [n for n, _ in model.named_buffers() if n.endswith(constants)]
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if tensor.is_floating_point() and name not in frozen:
                    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                    tensor += 0.3 * noise.to(tensor.dtype)
        return model

    return add_noise


@pytest.fixture(scope="session")
def _stored():
    """The keys of the rows that the book shows now."""
    rows = json.loads(PARITY_JSON.read_text("utf8"))["rows"] if PARITY_JSON.exists() else []
    return {(row["test"], row["model"], row["oracle"], row["check"]) for row in rows}


@pytest.fixture(scope="session")
def _rows():
    rows = {}
    yield rows
    if RECORD and rows:
        _store(rows)


@pytest.fixture
def record(_rows, _stored, request):
    """record(model, oracle, check, error): the largest error of each row of the book's table.

    `oracle` is a dotted name whose first part is the package (`nltk.lm.Lidstone`), or a class of
    transformers, or words such as "brute force". MINILLM_RECORD=1 stores what a run measured, a
    whole test file at a time; other runs fail on a comparison that the table does not have.
    """
    test = request.path.name

    def keep(model, oracle, check, error):
        key = (test, model, oracle, check)
        value = error.detach() if isinstance(error, torch.Tensor) else error
        _rows[key] = max(_rows.get(key, 0.0), float(value))
        told = f"not in the book's table: MINILLM_RECORD=1 pytest tests/parity/{test}, make sync"
        assert RECORD or key in _stored, f"{key} is {told}"

    return keep


def _store(rows):
    """Replace the rows of the test files that ran; other files' rows stay."""
    PARITY_JSON.parent.mkdir(parents=True, exist_ok=True)
    with PARITY_JSON.open("a+", encoding="utf8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two recording runs at once
        file.seek(0)
        text = file.read()
        ran = {test for test, *_ in rows}
        kept = [r for r in json.loads(text)["rows"] if r["test"] not in ran] if text else []
        kept += [_row(*key, error) for key, error in rows.items()]
        kept.sort(key=lambda r: (r["test"], r["model"], r["check"], r["oracle"]))
        file.seek(0)
        file.truncate()
        record = {"command": "MINILLM_RECORD=1 pytest tests/parity", "rows": kept}
        file.write(json.dumps(record, indent=1) + "\n")


@functools.cache
def _version(oracle):
    """`nltk 3.9.2` for a dotted name, transformers' for one of its classes, nothing for words."""
    package = oracle.split(".")[0] if "." in oracle else "transformers"
    if "." not in oracle:
        loaded = [module for name, module in sys.modules.items() if name.startswith(package)]
        if not oracle.isidentifier() or not any(oracle in vars(module) for module in loaded):
            return ""
    sold_as = importlib.metadata.packages_distributions().get(package, [package])[0]
    return f"{sold_as} {importlib.metadata.version(sold_as).split('+')[0]}"


def _row(test, model, oracle, check, error):
    return {
        "test": test,
        "model": model,
        "oracle": oracle,
        "version": _version(oracle),
        "torch": torch.__version__.split("+")[0],
        "machine": platform.machine(),
        "check": check,
        "max_error": float(f"{error:.1e}"),
    }
