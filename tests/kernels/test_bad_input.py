"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.kernels.flash_attention import flash_attention
from minillm.kernels.grouped_mm import grouped_mm
from minillm.kernels.int4_matmul import int4_matmul, quantize_int4
from minillm.kernels.int8_matmul import int8_matmul, quantize_int8
from minillm.kernels.linear_cross_entropy import linear_cross_entropy
from minillm.kernels.matmul import linear
from minillm.kernels.paged_attention import paged_decode
from minillm.kernels import dispatch, rope
from minillm.kernels.activations import swiglu

r = torch.randn
pages, table, lengths = r(8, 2, 1, 8), torch.zeros(2, 4).long(), torch.tensor([3, 5])
int8, int4 = quantize_int8(r(4, 6)), quantize_int4(r(4, 64))
angle = r(1, 5, 4)
CASES = [
    (lambda: linear(r(2, 3), r(4, 5)), "x (2, 3) and weight (4, 5) differ in width"),
    (lambda: swiglu(r(2, 3), r(3, 2)), "gate (2, 3) torch.float32 and up (3, 2)"),
    (lambda: grouped_mm(r(5, 8), r(2, 3, 8), torch.tensor([1, 1, 3])), "must be (n, d), (experts"),
    (lambda: int8_matmul(r(2, 5), *int8), "must be (…, d), (o, d) and (o,)"),
    (lambda: int4_matmul(r(2, 60), *int4), "must be (…, d), (o, d/2) and (o, groups)"),
    (lambda: paged_decode(r(2, 2, 8), pages, pages, table[:1], lengths), "do not fit together"),
    (lambda: flash_attention(r(1, 3, 4, 8), r(1, 2, 4, 8), r(1, 2, 4, 8)), "3 query heads cannot"),
    (lambda: linear_cross_entropy(r(3, 4), r(9, 5), table[0, :3]), "needs a weight (v, 4)"),
    (lambda: rope._rotate(r(2, 3, 4, 8), angle, angle, 1), "must both be (batch 2 or 1, 4, pairs)"),
    (lambda: dispatch.use("cuda").__enter__(), "unknown backend 'cuda'"),
]
for number, (call, message) in enumerate(CASES):
    try:
        call()
    except ValueError as error:
        assert message in str(error), f"case {number}: {message!r} is not in {error}"
    else:
        raise AssertionError(f"case {number}: no error, expected {message!r}")
print(len(CASES), "cases")
"""


def test_mistakes_are_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "10 cases"
