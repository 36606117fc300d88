"""Which backend serves a call, and the one thing that cannot be undone: Triton's first import."""

import os
import subprocess
import sys

import pytest
import torch

from minillm.kernels import dispatch
from minillm.kernels.flash_attention import flash_attention
from minillm.kernels.layer_norm import layer_norm
from minillm.kernels.rms_norm import rms_norm

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


@pytest.mark.parametrize("backend", ["interpret", "triton"])
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"mask": torch.ones(1, 1, 3, 3, dtype=torch.bool)}, "a mask"),
        ({"bias": torch.zeros(1, 1, 3, 3)}, "a bias"),
        ({"dropout": 0.5}, "dropout"),
        ({"bias": torch.zeros(3, 3), "dropout": 0.5}, "a bias and dropout"),
    ],
)
def test_what_a_kernel_does_not_do_is_refused_where_it_was_asked_for(backend, extra, message):
    q = torch.randn(1, 1, 3, 4)
    with dispatch.use(backend), pytest.raises(ValueError, match=f"no way to serve {message}:"):
        flash_attention(q, q, q, **extra)
    with dispatch.use(None):
        assert flash_attention(q, q, q, **extra).shape == q.shape


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_rows_that_no_program_can_hold_are_refused_where_the_kernel_was_asked_for(norm):
    x = torch.randn(1, 32_769)
    with dispatch.use("interpret"), pytest.raises(ValueError, match="rows of 32769 numbers"):
        norm(x)
    with dispatch.use(None):
        assert norm(x).shape == x.shape


@pytest.mark.parametrize(("n", "block"), [(0, 1), (1, 1), (2, 2), (3, 4), (123, 128), (1024, 1024)])
def test_blocks_are_powers_of_two(n, block):
    assert dispatch.power_of_two(n) == block


@pytest.mark.parametrize(("block", "warps"), [(1, 4), (2048, 4), (4096, 8), (2**16, 16)])
def test_warps(block, warps):
    assert dispatch.warps(block) == warps
