"""Rotary positions: both numbers of every pair read once, turned, and written once.

    (a, b) ← (a cos − b sin, a sin + b cos)        backward: the same with −sin, the inverse turn

Pair i is (i, i + f) in halves and (2i, 2i + 1) in pairs, which is one kernel with other offsets.
Written out in PyTorch each turn makes four products, two sums and a concatenation.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, power_of_two, tl
from minillm.nn import rotary


@jit
def _turn(
    x_ptr, y_ptr, cos_ptr, sin_ptr, h, t, p, f, sign, stride_b, stride_h, stride_t, angle_b,
    STEP: tl.constexpr, F: tl.constexpr, P: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    row, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    heads, pair = tl.program_id(2) * HEADS + tl.arange(0, HEADS), tl.arange(0, F)
    angle = batch * angle_b + row * f + pair
    cos = tl.load(cos_ptr + angle, pair < f, 0.0).to(tl.float32)[None]
    sin = tl.load(sin_ptr + angle, pair < f, 0.0).to(tl.float32)[None] * sign
    source = x_ptr + batch * stride_b + row.to(tl.int64) * stride_t + heads[:, None] * stride_h
    target = y_ptr + ((batch * h + heads[:, None]) * t + row) * p
    gap = f if STEP == 1 else 1
    inside = (heads < h)[:, None] & (pair < f)[None]
    a = tl.load(source + pair[None] * STEP, inside, 0.0).to(tl.float32)
    b = tl.load(source + pair[None] * STEP + gap, inside, 0.0).to(tl.float32)
    tl.store(target + pair[None] * STEP, a * cos - b * sin, inside)
    tl.store(target + pair[None] * STEP + gap, a * sin + b * cos, inside)
    if P > 0:  # numbers that are not turned
        rest = 2 * f + tl.arange(0, P)
        inside = (heads < h)[:, None] & (rest < p)[None]
        tl.store(target + rest[None], tl.load(source + rest[None], inside, 0.0), inside)


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor, step: int, sign: float) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.step, ctx.sign = step, sign
        x = x if x.stride(-1) == 1 else x.contiguous()
        (b, h, t, p), f = x.shape, cos.shape[-1]
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        cos, sin = cos.contiguous(), sin.contiguous()
        heads = min(power_of_two(h), 8)
        if y.numel():
            _turn[(t, b, -(-h // heads))](
                x, y, cos, sin, h, t, p, f, sign, *x.stride()[:3],
                t * f if len(cos) > 1 else 0, STEP=step, F=power_of_two(f),
                P=power_of_two(p - 2 * f) if p > 2 * f else 0, HEADS=heads,
            )  # fmt: skip
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _Rope.apply(dy, *ctx.saved_tensors, ctx.step, -ctx.sign), None, None, None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, step: int) -> Tensor:
    b, _, t, p = x.shape
    if cos.shape != sin.shape or cos.shape[0] not in (1, b) or cos.shape[1] != t:
        raise ValueError(
            f"cos {tuple(cos.shape)} and sin {tuple(sin.shape)} must both be (batch {b} or 1, {t}, "
            "pairs)"
        )
    if 2 * cos.shape[2] > p:
        raise ValueError(f"{cos.shape[2]} pairs need {2 * cos.shape[2]} numbers, a head has {p}")
    return _Rope.apply(x, cos, sin, step, 1.0)


def rotate_halves(
    x: Float[Tensor, "b h t p"], cos: Float[Tensor, "#b t f"], sin: Float[Tensor, "#b t f"]
) -> Float[Tensor, "b h t p"]:
    """(xᵢ, xᵢ₊f) turned by angle i: `nn.rotary.rotate_halves`, for `Rotary(rotate=…)`."""
    if backend(x) == "torch":
        return rotary.rotate_halves(x, cos, sin)
    return _rotate(x, cos, sin, 1)


def rotate_pairs(
    x: Float[Tensor, "b h t p"], cos: Float[Tensor, "#b t f"], sin: Float[Tensor, "#b t f"]
) -> Float[Tensor, "b h t p"]:
    """(x₂ᵢ, x₂ᵢ₊₁) turned by angle i: `nn.rotary.rotate_pairs`, for `Rotary(rotate=…)`."""
    if backend(x) == "torch":
        return rotary.rotate_pairs(x, cos, sin)
    return _rotate(x, cos, sin, 2)
