"""SwiGLU and GeGLU, σ(gate) ⊙ up for an activation σ, forward and backward, one pass each.

    y = σ(g) ⊙ u      du = dy ⊙ σ(g)      dg = dy ⊙ u ⊙ σ′(g)

PyTorch would store σ(g) for the backward pass; the kernels compute it again from g, which they must
read anyway: arithmetic is free while memory is what is waited for.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, tl
from minillm.nn import ffn
from minillm.nn.ops import torch_swiglu

BLOCK = 1024
SILU, GELU, GELU_TANH = 0, 1, 2


@jit
def activate(x, KIND: tl.constexpr):
    """σ(x) and σ′(x)."""
    if KIND == 0:  # x s, s = sigmoid(x)
        s = tl.sigmoid(x)
        y = x * s
        slope = s + y * (1 - s)
    elif KIND == 1:  # x Φ(x); Φ′ is the normal density
        phi = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
        y = x * phi
        slope = phi + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    else:  # x s, s = sigmoid(2 √(2/π) (x + 0.044715 x³)), since ½ (1 + tanh z) = sigmoid(2 z)
        s = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        y = x * s
        slope = s + y * (1 - s) * 1.5957691216057308 * (1 + 0.134145 * x * x)
    return y, slope


@jit
def _forward(gate_ptr, up_ptr, y_ptr, n, KIND: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + at, at < n, 0.0).to(tl.float32)
    up = tl.load(up_ptr + at, at < n, 0.0).to(tl.float32)
    active, _ = activate(gate, KIND)
    tl.store(y_ptr + at, active * up, at < n)


@jit
def _backward(
    gate_ptr, up_ptr, dy_ptr, dgate_ptr, dup_ptr, n, KIND: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + at, at < n, 0.0).to(tl.float32)
    up = tl.load(up_ptr + at, at < n, 0.0).to(tl.float32)
    dy = tl.load(dy_ptr + at, at < n, 0.0).to(tl.float32)
    active, slope = activate(gate, KIND)
    tl.store(dup_ptr + at, dy * active, at < n)
    tl.store(dgate_ptr + at, dy * up * slope, at < n)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor, kind: int) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        y, n = torch.empty_like(gate), gate.numel()
        if n:
            _forward[(-(-n // BLOCK),)](gate, up, y, n, KIND=kind, BLOCK=BLOCK)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        dy, dgate, dup, n = (
            dy.contiguous(),
            torch.empty_like(gate),
            torch.empty_like(up),
            up.numel(),
        )
        if n:
            _backward[(-(-n // BLOCK),)](gate, up, dy, dgate, dup, n, KIND=ctx.kind, BLOCK=BLOCK)
        return dgate, dup, None


def _gated(gate: Tensor, up: Tensor, kind: int, reference: Callable[..., Tensor]) -> Tensor:
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(
            f"gate {tuple(gate.shape)} {gate.dtype} and up {tuple(up.shape)} {up.dtype} must be of "
            "one shape and type"
        )
    return reference(gate, up) if backend(gate) == "torch" else _Gated.apply(gate, up, kind)


def swiglu(gate: Float[Tensor, "*n"], up: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """silu(gate) ⊙ up (Shazeer 2020, eq. 6; LLaMA)."""
    return _gated(gate, up, SILU, torch_swiglu)


def geglu(gate: Float[Tensor, "*n"], up: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """gelu(gate) ⊙ up with the exact GELU (Shazeer 2020, eq. 6)."""
    return _gated(gate, up, GELU, ffn.geglu)


def geglu_tanh(gate: Float[Tensor, "*n"], up: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """gelu(gate) ⊙ up with the tanh form, as in T5 1.1 and Gemma."""
    return _gated(gate, up, GELU_TANH, ffn.geglu_tanh)
