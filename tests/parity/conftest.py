"""Shared by the parity tests: noise on every weight, and a record of the largest errors."""

import json
import os
import platform
from pathlib import Path

import pytest
import torch

PARITY_JSON = Path(__file__).parents[2] / "book" / "data" / "parity.json"


@pytest.fixture
def perturb():
    """Add N(0, 0.3) to every parameter and floating buffer: default values hide mistakes."""

    def add_noise(model, seed):
        generator = torch.Generator().manual_seed(seed)
        frozen_masks = [n for n, _ in model.named_buffers() if n.endswith("attn.bias")]
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if tensor.is_floating_point() and name not in frozen_masks:
                    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                    tensor += 0.3 * noise.to(tensor.dtype)
        return model

    return add_noise


@pytest.fixture(scope="session")
def _rows():
    rows = {}
    yield rows
    if os.environ.get("MINILLM_RECORD") == "1" and rows:
        import transformers

        record = {
            "command": "MINILLM_RECORD=1 pytest tests/parity",
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "machine": platform.machine(),
            "rows": [
                {"model": model, "oracle": oracle, "check": check, "max_error": float(f"{e:.1e}")}
                for (model, oracle, check), e in sorted(rows.items())
            ],
        }
        PARITY_JSON.parent.mkdir(parents=True, exist_ok=True)
        PARITY_JSON.write_text(json.dumps(record, indent=1) + "\n")


@pytest.fixture
def record(_rows):
    """record(model, oracle, check, error): keep the largest; stored only with MINILLM_RECORD=1."""

    def keep(model, oracle, check, error):
        key = (model, oracle, check)
        _rows[key] = max(_rows.get(key, 0.0), float(error))

    return keep
