"""The benchmark for GPUs runs here too, tiny and untimed: every rival agrees with every kernel."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_kernels.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="interpreted kernels run on a CPU")
def test_every_side_of_every_case_agrees():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--smoke"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 15
    assert all("minillm, " in line and line.endswith("agree") for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would run")
def test_without_a_gpu_it_says_so():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1
    assert "a CUDA device is needed" in done.stderr
