"""Notebooks under pytest: run at the quick scale; cells tagged `gpu` skip visibly without a GPU."""

import os

import pytest


def pytest_configure() -> None:
    """Run notebooks at the scale of CI unless told otherwise."""
    os.environ.setdefault("MINILLM_SCALE", "quick")
    os.environ.setdefault("TQDM_DISABLE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip nbval's cells tagged `gpu` where torch sees no CUDA device."""
    tagged = [
        item
        for item in items
        if type(item).__name__ == "IPyNbCell" and "gpu" in item.cell.metadata.get("tags", [])
    ]
    if not tagged:
        return
    import torch

    if not torch.cuda.is_available():
        for item in tagged:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
