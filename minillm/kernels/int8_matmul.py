"""x Wᵀ with weights stored as 8-bit integers and one scale a row: half the bytes of 16 bits.

    w = scale · i,  i ∈ −127 … 127,  scale = max |row| / 127        dx = (dy ⊙ scale) i

A token's step reads every weight once and does little else, so bytes are time. The integers are
widened in registers; the scale is one product on the finished sum.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, tl


def quantize_int8(
    weight: Float[Tensor, "o d"],
) -> tuple[Int8[Tensor, "o d"], Float[Tensor, " o"]]:
    """Integers and scales of every row, rounded to nearest; a row of zeros has scale 1."""
    scale = weight.abs().amax(1).float() / 127
    scale = torch.where(scale == 0, 1.0, scale)
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale.to(weight.dtype)


@jit
def _forward(
    x_ptr, w_ptr, scale_ptr, y_ptr, n, o, d, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    acc = tl.zeros([M, N], tl.float32)
    for first in range(0, d, K):
        inner = first + tl.arange(0, K)
        inside = (rows < n)[:, None] & (inner < d)[None]
        x = tl.load(x_ptr + rows.to(tl.int64)[:, None] * d + inner[None], inside, 0.0)
        inside = (columns < o)[:, None] & (inner < d)[None]
        w = tl.load(w_ptr + columns.to(tl.int64)[:, None] * d + inner[None], inside, 0)
        acc += tl.dot(x, tl.trans(w.to(x.dtype)), input_precision="ieee")
    acc *= tl.load(scale_ptr + columns, columns < o, 0.0).to(tl.float32)[None]
    inside = (rows < n)[:, None] & (columns < o)[None]
    tl.store(y_ptr + rows.to(tl.int64)[:, None] * o + columns[None], acc, inside)


@jit
def _backward(
    dy_ptr, w_ptr, scale_ptr, dx_ptr, n, o, d, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    inner = tl.program_id(1) * K + tl.arange(0, K)
    acc = tl.zeros([M, K], tl.float32)
    for first in range(0, o, N):
        columns = first + tl.arange(0, N)
        inside = (rows < n)[:, None] & (columns < o)[None]
        dy = tl.load(dy_ptr + rows.to(tl.int64)[:, None] * o + columns[None], inside, 0.0)
        dy = dy * tl.load(scale_ptr + columns, columns < o, 0.0).to(dy.dtype)[None]
        inside = (columns < o)[:, None] & (inner < d)[None]
        w = tl.load(w_ptr + columns.to(tl.int64)[:, None] * d + inner[None], inside, 0)
        acc += tl.dot(dy, w.to(dy.dtype), input_precision="ieee")
    inside = (rows < n)[:, None] & (inner < d)[None]
    tl.store(dx_ptr + rows.to(tl.int64)[:, None] * d + inner[None], acc, inside)


class _Int8(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, scale, tile):
        ctx.save_for_backward(weight, scale)
        ctx.tile, (M, N, K) = tile, tile
        (n, d), o, x = x.shape, len(weight), x.contiguous()
        y = torch.empty(n, o, dtype=x.dtype, device=x.device)
        if n:
            _forward[(-(-n // M), -(-o // N))](x, weight, scale, y, n, o, d, M=M, N=N, K=K)
        return y

    @staticmethod
    def backward(ctx, dy):
        weight, scale = ctx.saved_tensors
        M, N, K = ctx.tile
        n, (o, d), dy = len(dy), weight.shape, dy.contiguous()
        dx = torch.empty(n, d, dtype=dy.dtype, device=dy.device)
        if n:
            _backward[(-(-n // M), -(-d // K))](dy, weight, scale, dx, n, o, d, M=M, N=N, K=K)
        return dx, None, None, None


def int8_matmul(
    x: Float[Tensor, "*n d"],
    weight: Int8[Tensor, "o d"],
    scale: Float[Tensor, " o"],
    *,
    tile: tuple[int, int, int] = (16, 64, 128),
) -> Float[Tensor, "*n o"]:
    """x (scale ⊙ weight)ᵀ; the gradient flows to `x` alone, the weights are frozen."""
    if x.shape[-1] != weight.shape[1] or len(scale) != len(weight):
        raise ValueError(
            f"x {tuple(x.shape)}, weight {tuple(weight.shape)} and scale {tuple(scale.shape)} must "
            "be (…, d), (o, d) and (o,)"
        )
    if backend(x, dot=True) == "torch":
        return x @ (weight.to(x.dtype) * scale.to(x.dtype)[:, None]).T
    y = _Int8.apply(x.reshape(-1, x.shape[-1]), weight.contiguous(), scale, tile)
    return y.view(*x.shape[:-1], -1)
