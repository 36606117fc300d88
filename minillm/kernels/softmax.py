"""Softmax along the last axis, forward and backward, one program a row.

    y = exp(x − m) / Σ exp(x − m),  m = max x          dx = y ⊙ (dy − Σ y ⊙ dy)

Written out in PyTorch this takes several passes over memory; here a row is read once and written
once. Rows longer than a block are read twice: the first pass keeps a running maximum and rescales
the sum whenever the maximum grows (Milakov and Gimelshein 2018), as FlashAttention does.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, power_of_two, tl, warps

LONGEST = 16_384  # numbers of a row that are held in registers at once


def softmax_reference(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """The formula above, computed in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    e = (wide - wide.amax(-1, keepdim=True)).exp()
    return (e / e.sum(-1, keepdim=True)).to(x.dtype)


@jit
def _forward(x_ptr, y_ptr, d, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * d
    columns = tl.arange(0, BLOCK)
    if WHOLE:
        x = tl.load(x_ptr + start + columns, columns < d, -float("inf")).to(tl.float32)
        e = tl.exp(x - tl.max(x, 0))
        tl.store(y_ptr + start + columns, e / tl.sum(e, 0), columns < d)
    else:
        high = tl.full([BLOCK], -3.4e38, tl.float32)  # finite, so that no −inf − −inf can arise
        total = tl.zeros([BLOCK], tl.float32)
        for first in range(0, d, BLOCK):  # a maximum and a sum in every lane, joined below
            inside = first + columns < d
            x = tl.load(x_ptr + start + first + columns, inside, -float("inf")).to(tl.float32)
            higher = tl.maximum(high, x)
            total = total * tl.exp(high - higher) + tl.exp(x - higher)
            high = higher
        top = tl.max(high, 0)
        total = tl.sum(total * tl.exp(high - top), 0)
        for first in range(0, d, BLOCK):
            inside = first + columns < d
            x = tl.load(x_ptr + start + first + columns, inside, -float("inf")).to(tl.float32)
            tl.store(y_ptr + start + first + columns, tl.exp(x - top) / total, inside)


@jit
def _backward(y_ptr, dy_ptr, dx_ptr, d, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * d
    columns = tl.arange(0, BLOCK)
    if WHOLE:
        y = tl.load(y_ptr + start + columns, columns < d, 0.0).to(tl.float32)
        dy = tl.load(dy_ptr + start + columns, columns < d, 0.0).to(tl.float32)
        tl.store(dx_ptr + start + columns, y * (dy - tl.sum(y * dy, 0)), columns < d)
    else:
        dot = tl.zeros([BLOCK], tl.float32)
        for first in range(0, d, BLOCK):
            inside = first + columns < d
            y = tl.load(y_ptr + start + first + columns, inside, 0.0).to(tl.float32)
            dot += y * tl.load(dy_ptr + start + first + columns, inside, 0.0).to(tl.float32)
        mean = tl.sum(dot, 0)
        for first in range(0, d, BLOCK):
            inside = first + columns < d
            y = tl.load(y_ptr + start + first + columns, inside, 0.0).to(tl.float32)
            dy = tl.load(dy_ptr + start + first + columns, inside, 0.0).to(tl.float32)
            tl.store(dx_ptr + start + first + columns, y * (dy - mean), inside)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, block: int | None) -> Tensor:
        x = x.contiguous()
        d, y = x.shape[-1], torch.empty_like(x)
        ctx.block = min(power_of_two(d), LONGEST) if block is None else block
        ctx.save_for_backward(y)
        if x.numel():
            options = {"BLOCK": ctx.block, "WHOLE": ctx.block >= d, "num_warps": warps(ctx.block)}
            _forward[(x.numel() // d,)](x, y, d, **options)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        dy, dx, d = dy.contiguous(), torch.empty_like(y), y.shape[-1]
        if y.numel():
            options = {"BLOCK": ctx.block, "WHOLE": ctx.block >= d, "num_warps": warps(ctx.block)}
            _backward[(y.numel() // d,)](y, dy, dx, d, **options)
        return dx, None


def softmax(x: Float[Tensor, "*n d"], *, block: int | None = None) -> Float[Tensor, "*n d"]:
    """exp(x) / Σ exp(x) over the last axis; a row of nothing but −∞ gives NaN, as PyTorch's.

    `block`, a power of two, is the part of a row read at a time; by default the whole row, up to
    16,384 numbers.
    """
    if backend(x) == "torch":
        return torch.softmax(x, -1)
    return _Softmax.apply(x, block)
