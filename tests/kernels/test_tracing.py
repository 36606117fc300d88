"""Bytes against formulas; strays and races are caught, and no kernel of the library has any."""

import pytest
import torch

from minillm.kernels import activations, rope
from minillm.kernels.cross_entropy import cross_entropy
from minillm.kernels.dispatch import INTERPRETED, tl, triton, use
from minillm.kernels.flash_attention import flash_attention
from minillm.kernels.grouped_mm import grouped_mm
from minillm.kernels.int4_matmul import int4_matmul, quantize_int4
from minillm.kernels.int8_matmul import int8_matmul, quantize_int8
from minillm.kernels.layer_norm import layer_norm
from minillm.kernels.linear_cross_entropy import linear_cross_entropy
from minillm.kernels.matmul import linear
from minillm.kernels.paged_attention import paged_decode
from minillm.kernels.rms_norm import rms_norm
from minillm.kernels.softmax import softmax
from minillm.kernels.tracing import BadAccess, eager_bytes, trace

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="only interpreted kernels can be traced")


def make(*shape, grad=True):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_(grad)


# ------------------------------------------------------------------------- kernels that are bad

if triton is not None:

    @triton.jit
    def copy(x_ptr, y_ptr, d, BLOCK: tl.constexpr, READ: tl.constexpr, WRITE: tl.constexpr):
        at, lane = tl.program_id(0) * d, tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at + lane, lane < d) if READ else tl.load(x_ptr + at + lane)
        tl.store(y_ptr + at + lane, x, (lane < d) if WRITE else (lane <= d))

    @triton.jit
    def total(x_ptr, y_ptr, ATOMIC: tl.constexpr):
        x = tl.load(x_ptr + tl.program_id(0))
        if ATOMIC:
            tl.atomic_add(y_ptr, x)
        else:
            tl.store(y_ptr, tl.load(y_ptr) + x)

    @triton.jit
    def shifted(x_ptr, n):  # each program reads what the next one writes
        i = tl.program_id(0)
        tl.store(x_ptr + i, tl.load(x_ptr + i + 1, i + 1 < n, 0.0))


def test_a_masked_copy_is_fine_and_counted():
    x, y = make(3, 5, grad=False), torch.empty(3, 5)
    with trace() as traffic:
        copy[(3,)](x, y, 5, BLOCK=8, READ=True, WRITE=True)
    assert torch.equal(x, y)
    assert (traffic.loaded, traffic.stored, traffic.distinct) == (60, 60, 120)
    assert (traffic.programs, len(traffic.launches)) == (3, 1)


def test_an_unmasked_read_passes_the_interpreter_and_not_the_trace():
    roomy = torch.full((4, 5), 7.0)  # so that the reads beyond x hurt nobody here
    x, y = roomy[:3], torch.empty(3, 5)
    copy[(3,)](x, y, 5, BLOCK=8, READ=False, WRITE=True)
    assert torch.equal(x, y), "the interpreter says nothing"
    with pytest.raises(BadAccess, match="program 2 reads 3 numbers outside"), trace():
        copy[(3,)](x, y, 5, BLOCK=8, READ=False, WRITE=True)


def test_a_write_too_far_is_kept_from_happening():
    roomy = torch.zeros(4, 5)
    with pytest.raises(BadAccess, match="program 2 writes 1 number outside"), trace():
        copy[(3,)](torch.ones(3, 5), roomy[:3], 5, BLOCK=8, READ=True, WRITE=False)
    assert not roomy[3].any()


def test_a_sum_without_atomics_is_a_race():
    x, y = make(4, grad=False), torch.zeros(1)
    total[(4,)](x, y, ATOMIC=False)
    torch.testing.assert_close(y[0], x.sum())  # one after the other, it even adds up
    with pytest.raises(BadAccess, match="a race: program 1 writes"), trace():
        total[(4,)](x, y, ATOMIC=False)
    with trace() as traffic:
        total[(4,)](x, y, ATOMIC=True)
    assert (traffic.loaded, traffic.stored, traffic.atomics) == (32, 16, 4)


def test_reading_what_another_program_writes_is_a_race():
    with pytest.raises(BadAccess, match=r"program . reads a number that program . writes"), trace():
        shifted[(4,)](torch.ones(4), 4)


def test_a_race_leaves_the_interpreter_as_it_was():
    with pytest.raises(BadAccess), trace():
        shifted[(4,)](torch.ones(4), 4)
    x = make(3, 7, grad=False)
    torch.testing.assert_close(softmax(x), torch.softmax(x, -1))


def test_strided_lanes_touch_a_sector_each():
    if triton is None:
        pytest.skip("Triton has no wheel for this system")

    @triton.jit
    def read(x_ptr, y_ptr, step, BLOCK: tl.constexpr):
        lane = tl.arange(0, BLOCK)
        tl.store(y_ptr + lane, tl.load(x_ptr + lane * step))

    buffer = torch.zeros(32 * 32 + 8)
    start = -buffer.data_ptr() // 4 % 8  # where a sector of 32 bytes begins
    x = buffer[start : start + 1024]
    y = torch.empty(40)
    y = y[-y.data_ptr() // 4 % 8 :][:32]
    found = {}
    for step in (1, 2, 8, 32):
        with trace() as traffic:
            read[(1,)](x, y, step, BLOCK=32)
        found[step] = traffic.sectors - 4  # the stores touch four
    assert found == {1: 4, 2: 8, 8: 32, 32: 32}


# -------------------------------------------------------------------- the library's own kernels


def test_softmax_moves_each_number_once_each_way():
    x = make(6, 100)
    with trace() as traffic:
        y = softmax(x)
    assert traffic.requested == traffic.distinct == 2 * 4 * x.numel()
    with trace() as traffic:
        y.backward(torch.ones_like(y))
    assert traffic.distinct == 3 * 4 * x.numel()
    with trace() as traffic:
        softmax(x, block=32)
    assert traffic.requested == 3 * 4 * x.numel(), "a long row is read twice"
    assert traffic.distinct == 2 * 4 * x.numel()


def test_rows_of_a_norm_share_their_weight():
    x, w = make(6, 100), make(100)
    with trace() as traffic:
        rms_norm(x, w)
    assert traffic.distinct == 4 * (2 * 600 + 100 + 6)
    assert traffic.requested == 4 * (2 * 600 + 6 * 100 + 6)


@pytest.mark.parametrize(
    "run",
    [
        lambda: softmax(make(5, 33), block=16),
        lambda: layer_norm(make(9, 33), make(33), make(33)),
        lambda: rms_norm(make(9, 33), make(33)),
        lambda: rms_norm(make(9, 33), make(33), residual=make(9, 33))[0],
        lambda: activations.swiglu(make(3, 700), make(3, 700)),
        lambda: rope.rotate_halves(make(1, 3, 5, 12), make(1, 5, 5), make(1, 5, 5)),
        lambda: cross_entropy(make(5, 37), torch.tensor([1, 36, -100, 0, 7]), block=16),
        lambda: linear_cross_entropy(make(5, 9), make(37, 9), torch.tensor([1, 36, -100, 0, 7])),
        lambda: linear(make(17, 9), make(33, 9), make(33)),
        lambda: grouped_mm(make(7, 9), make(3, 5, 9), torch.tensor([4, 0, 3])),
        lambda: int8_matmul(make(3, 64), *quantize_int8(make(33, 64, grad=False))),
        lambda: int4_matmul(make(3, 64), *quantize_int4(make(33, 64, grad=False), 32)),
        lambda: flash_attention(make(1, 2, 19, 16), make(1, 1, 19, 16), make(1, 1, 19, 16)),
    ],
    ids=[
        "softmax", "layer_norm", "rms_norm", "add_norm", "swiglu", "rope", "cross_entropy",
        "linear_cross_entropy", "linear", "grouped_mm", "int8", "int4", "flash_attention",
    ],
)  # fmt: skip
def test_no_kernel_strays_or_races(run):
    with trace() as traffic:
        y = run()
        y.backward(torch.ones_like(y))
    assert traffic.requested > 0


def test_paged_decoding_neither_strays_nor_races():
    pages = [make(6, 8, 2, 16, grad=False) for _ in range(2)]
    table = torch.tensor([[3, 1, 0], [5, 2, 4]])
    with trace() as traffic:
        paged_decode(make(2, 4, 16, grad=False), *pages, table, torch.tensor([19, 9]))
    assert traffic.requested > 0


# ---------------------------------------------------------------------------------- PyTorch's bytes


def test_eager_operations_read_and_write_in_full():
    x, row = make(6, 100, grad=False), make(100, grad=False)
    full, line = 4 * 600, 4 * 100
    assert eager_bytes(lambda: x + x) == (2 * full, ["add"])
    assert eager_bytes(lambda: x * row) == (2 * full + line, ["mul"])
    assert eager_bytes(lambda: x * row.expand(6, 100))[0] == 2 * full + line
    assert eager_bytes(lambda: x.sum(-1))[0] == full + 24
    assert eager_bytes(lambda: torch.ones_like(x)) == (full, ["ones_like"]), "only written"
    assert eager_bytes(lambda: x.reshape(600)[5:]) == (0, []), "views move nothing"
    assert eager_bytes(lambda: x.exp_()) == (2 * full, ["exp_"]), "in place: read and written"


def test_the_backward_pass_is_counted_too():
    x = make(6, 100)
    y = x.exp()
    assert eager_bytes(y.backward, torch.ones(6, 100))[0] >= 3 * 2400


def test_only_interpreted_kernels_are_traced(monkeypatch):
    monkeypatch.setattr("minillm.kernels.dispatch.INTERPRETED", False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"), trace():
        pass
    with use(None):
        pass
