"""Every kernel of the library compiles for GPUs that are not here, at the types it is made for."""

import os
from dataclasses import replace

import pytest
import torch

from minillm.accounting.roofline import A100, H100
from minillm.kernels import activations, rope
from minillm.kernels.compiling import Compiled, Launch, compile_for
from minillm.kernels.cross_entropy import cross_entropy
from minillm.kernels.dispatch import INTERPRETED, triton, use
from minillm.kernels.flash_attention import flash_attention
from minillm.kernels.grouped_mm import grouped_mm
from minillm.kernels.int4_matmul import int4_matmul, quantize_int4
from minillm.kernels.int8_matmul import int8_matmul, quantize_int8
from minillm.kernels.layer_norm import layer_norm
from minillm.kernels.matmul import linear
from minillm.kernels.paged_attention import paged_decode
from minillm.kernels.rms_norm import rms_norm
from minillm.kernels.softmax import softmax
from minillm.kernels.tracing import trace

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="launches are collected interpreted")


def make(*shape, grad=True):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_(grad)


def work():
    """Every kernel once, forward and backward, at small sizes."""
    targets = torch.tensor([1, 36, -100, 0, 7])
    angle = make(1, 5, 8, grad=False)
    yield softmax(make(5, 48))
    yield softmax(make(5, 48), block=16)
    yield layer_norm(make(9, 48), make(48), make(48))
    yield rms_norm(make(9, 48), make(48))
    yield rms_norm(make(9, 48), make(48), residual=make(9, 48))[0]
    yield activations.swiglu(make(3, 64), make(3, 64))
    yield activations.geglu(make(3, 64), make(3, 64))
    yield activations.geglu_tanh(make(3, 64), make(3, 64))
    yield rope.rotate_halves(make(1, 3, 5, 16), angle.cos(), angle.sin())
    yield rope.rotate_pairs(make(1, 3, 5, 16), angle.cos(), angle.sin())
    yield cross_entropy(make(5, 37), targets, block=16)
    yield cross_entropy(make(5, 37), targets, softcap=30.0)
    yield linear(make(17, 48), make(33, 48), make(33), activation="gelu_tanh")
    yield grouped_mm(make(7, 48), make(3, 32, 48), torch.tensor([4, 0, 3]))
    yield int8_matmul(make(3, 64), *quantize_int8(make(33, 64, grad=False)))
    yield int4_matmul(make(3, 64), *quantize_int4(make(33, 64, grad=False), 32))
    yield flash_attention(make(1, 2, 19, 16), make(1, 1, 19, 16), make(1, 1, 19, 16), causal=True)


@pytest.fixture(scope="module")
def launches():
    if triton is None:
        pytest.skip("Triton has no wheel for this system")
    with use("interpret"), trace() as traffic:
        for y in work():
            y.backward(torch.ones_like(y))
        pages = [make(6, 8, 2, 16, grad=False) for _ in range(2)]
        table = torch.tensor([[3, 1, 0], [5, 2, 4]])
        paged_decode(make(2, 4, 16, grad=False), *pages, table, torch.tensor([19, 9]))
    return traffic.launches


def different(launches):
    """Launches that compile to different code, with pointers to bfloat16."""
    return list({str(x): x.retyped("fp32", "bf16") for x in launches}.values())


BROKEN = Launch("minillm.kernels.softmax", "_forward", {"x_ptr": "*fp32"}, {})


@pytest.fixture(scope="module")
def hopper(launches):
    """Everything that is asked of a GPU of capability 9.0, compiled in one process."""
    chosen = next(x for x in launches if x.module.endswith(".softmax"))
    chosen = replace(chosen, constants={"BLOCK": 1024, "WHOLE": True})
    wanted = [*different(launches), chosen, replace(chosen, divisible=()), BROKEN]
    found = compile_for([(9, 0)], wanted)[9, 0]
    return list(zip(wanted, found, strict=True))


def test_every_kernel_compiles_in_bfloat16_for_hopper(hopper):
    assert {launch.module.split(".")[-1] for launch, _ in hopper} >= {
        "softmax", "layer_norm", "rms_norm", "activations", "rope", "cross_entropy", "matmul",
        "grouped_mm", "int8_matmul", "int4_matmul", "flash_attention", "flash_backward",
        "paged_attention",
    }  # fmt: skip
    for launch, found in hopper[:-1]:
        assert not found.error, f"{launch.module}.{launch.kernel}: {found.error}"
        assert 0 < found.registers <= 255


def test_sizes_that_are_no_multiples_of_16_load_one_number_at_a_time(hopper):
    (wide, even), (narrow, odd) = hopper[-3:-1]
    assert wide.divisible and not narrow.divisible
    assert (even.widest, odd.widest) == (16, 4)


def test_what_does_not_compile_says_why(hopper):
    launch, found = hopper[-1]
    assert launch is BROKEN and found.error and found == Compiled("_forward", error=found.error)


def test_a_t4_gets_products_without_tensor_cores(launches):
    chosen = [x for x in launches if x.kernel == "_product"][:1]
    chosen += [x for x in launches if x.module.endswith(".softmax")][:1]
    wanted = [launch.retyped("fp32", "fp16") for launch in chosen]
    found = compile_for([(7, 5), (8, 0)], wanted)
    assert [one.tensor_cores for one in found[7, 5]] == [False, False]
    assert [one.tensor_cores for one in found[8, 0]] == [True, False]
    assert not any(one.error for one in found[7, 5])


def test_the_tiles_fit_into_the_gpus_that_they_are_made_for():
    """Shared memory and registers at the tiles that float16 and bfloat16 get without asking."""

    def half(*shape):
        return make(*shape, grad=False).half().requires_grad_()

    with use("interpret"), trace() as traffic:
        for p in (64, 128):
            q, kv = half(1, 1, 8, p), (half(1, 1, 8, p), half(1, 1, 8, p))
            flash_attention(q, *kv, causal=True).sum().backward()
        linear(half(16, 64), half(16, 64), half(16)).sum().backward()
        grouped_mm(half(8, 64), half(2, 16, 64), torch.tensor([3, 5])).sum().backward()
    wanted = list({str(x): x.retyped("fp16", "bf16") for x in traffic.launches}.values())
    found = compile_for([(8, 0), (9, 0)], wanted)
    for gpu in (A100, H100):
        for launch, one in zip(wanted, found[gpu.capability], strict=True):
            said = f"{launch.kernel} {dict(launch.constants)} on {gpu.name}: {one}"
            assert not one.error and one.tensor_cores, said
            assert one.shared <= gpu.shared - 1024, said  # 1 KB of each block is the driver's
            assert one.spilled <= 64, said


def test_a_compiler_that_does_not_start_is_an_error(monkeypatch):
    monkeypatch.setitem(os.environ, "PYTHONHOME", "/nonexistent")
    with pytest.raises(ValueError, match="the compiler did not start"):
        compile_for([(9, 0)], [])
