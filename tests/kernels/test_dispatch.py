"""Which backend serves a call, and the one thing that cannot be undone: Triton's first import."""

import os
import subprocess
import sys

import pytest
import torch

from minillm.kernels import dispatch

CUDA = torch.cuda.is_available()
LATE = """
import triton.language  # as transformers imports it, without the variable
import torch
from minillm.kernels import dispatch
from minillm.kernels.softmax import softmax

assert not dispatch.INTERPRETED
x = torch.randn(3, 5)
assert torch.allclose(softmax(x), torch.softmax(x, -1))
with dispatch.use("interpret"):
    try:
        softmax(x)
    except ValueError as error:
        assert "before Triton is first imported" in str(error), error
    else:
        raise AssertionError("no error")
print("said")
"""


@pytest.mark.skipif(CUDA, reason="asks what happens without a GPU")
def test_triton_imported_first_is_noticed():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", LATE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "said\n"


def test_without_an_override_a_cpu_tensor_goes_to_torch():
    with dispatch.use(None):
        assert dispatch.backend(torch.zeros(2)) == "torch"


@pytest.mark.skipif(CUDA, reason="asks what happens without a GPU")
@pytest.mark.parametrize(
    ("backend", "dtype", "message"),
    [
        ("interpret", torch.bfloat16, "computes wrongly with torch.bfloat16"),
        ("triton", torch.float32, "the tensor is on cpu"),
        ("triton", torch.int64, "take no torch.int64"),
    ],
)
def test_an_override_that_cannot_be_obeyed_says_why(backend, dtype, message):
    with dispatch.use(backend), pytest.raises(ValueError, match=message):
        dispatch.backend(torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize(("n", "block"), [(0, 1), (1, 1), (2, 2), (3, 4), (123, 128), (1024, 1024)])
def test_blocks_are_powers_of_two(n, block):
    assert dispatch.power_of_two(n) == block


@pytest.mark.parametrize(("block", "warps"), [(1, 4), (2048, 4), (4096, 8), (2**16, 16)])
def test_warps(block, warps):
    assert dispatch.warps(block) == warps
