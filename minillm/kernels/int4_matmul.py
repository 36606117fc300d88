"""x Wᵀ with weights in 4 bits and one scale for every group of a row: a quarter of 16 bits.

    w = scale · (i − 8),  i ∈ 0 … 15        dx = Σ_rows dy · scale · (i − 8)

Byte j of a group of G holds number j in its lower half and number j + G/2 in its upper half, as
GGUF's Q4_0 does: both halves of the byte then meet contiguous numbers of x. dx is what QLoRA needs:
the base is frozen, but the gradient must pass through it.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, tl


def quantize_int4(
    weight: Float[Tensor, "o d"], group: int = 32
) -> tuple[UInt8[Tensor, "o half"], Float[Tensor, "o groups"]]:
    """Packed nibbles and scales: as Q4_0, scale = −(the number largest in size) / 8, signed.

    That number is then exactly −8 scales, the one code without an opposite.
    """
    if group < 32 or group & (group - 1) or weight.shape[1] % group:
        raise ValueError(
            f"group {group} must be a power of two, at least 32, that divides {weight.shape[1]}"
        )
    rows = weight.float().unflatten(1, (-1, group))
    largest = rows.gather(2, rows.abs().argmax(2, keepdim=True))
    scale = largest / -8
    safe = torch.where(scale == 0, 1.0, scale)
    codes = (rows / safe + 8).round().clamp(0, 15).to(torch.uint8)
    low, high = codes.chunk(2, dim=2)
    return (low | high << 4).flatten(1), scale[..., 0].to(weight.dtype)


def dequantize_int4(
    packed: UInt8[Tensor, "o half"], scale: Float[Tensor, "o groups"]
) -> Float[Tensor, "o d"]:
    """The weights that nibbles and scales stand for."""
    groups = packed.unflatten(1, (scale.shape[1], -1))
    codes = torch.cat([groups & 15, groups >> 4], dim=2).to(scale.dtype) - 8
    return (codes * scale[..., None]).flatten(1)


@jit
def _forward(
    x_ptr, w_ptr, scale_ptr, y_ptr, n, o, d, groups,
    M: tl.constexpr, N: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    lane = tl.arange(0, HALF)
    x_at = x_ptr + rows.to(tl.int64)[:, None] * d + lane[None]
    w_at = w_ptr + columns.to(tl.int64)[:, None] * (d // 2) + lane[None]
    acc = tl.zeros([M, N], tl.float32)
    for g in range(groups):
        low = tl.load(x_at + g * 2 * HALF, (rows < n)[:, None], 0.0)
        high = tl.load(x_at + g * 2 * HALF + HALF, (rows < n)[:, None], 0.0)
        codes = tl.load(w_at + g * HALF, (columns < o)[:, None], 0)
        part = tl.dot(
            low, tl.trans(((codes & 15).to(tl.int8) - 8).to(low.dtype)), input_precision="ieee"
        )
        part += tl.dot(
            high, tl.trans(((codes >> 4).to(tl.int8) - 8).to(low.dtype)), input_precision="ieee"
        )
        scale = tl.load(scale_ptr + columns.to(tl.int64) * groups + g, columns < o, 0.0)
        acc += part * scale.to(tl.float32)[None]
    inside = (rows < n)[:, None] & (columns < o)[None]
    tl.store(y_ptr + rows.to(tl.int64)[:, None] * o + columns[None], acc, inside)


@jit
def _backward(
    dy_ptr, w_ptr, scale_ptr, dx_ptr, n, o, d, groups,
    M: tl.constexpr, N: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    rows, g = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    lane = tl.arange(0, HALF)
    low = tl.zeros([M, HALF], tl.float32)
    high = tl.zeros([M, HALF], tl.float32)
    for first in range(0, o, N):
        columns = first + tl.arange(0, N)
        inside = (rows < n)[:, None] & (columns < o)[None]
        dy = tl.load(dy_ptr + rows.to(tl.int64)[:, None] * o + columns[None], inside, 0.0)
        scale = tl.load(scale_ptr + columns.to(tl.int64) * groups + g, columns < o, 0.0)
        dy = dy * scale.to(dy.dtype)[None]
        at = columns.to(tl.int64)[:, None] * (d // 2) + g * HALF + lane[None]
        codes = tl.load(w_ptr + at, (columns < o)[:, None], 8)
        low += tl.dot(dy, ((codes & 15).to(tl.int8) - 8).to(dy.dtype), input_precision="ieee")
        high += tl.dot(dy, ((codes >> 4).to(tl.int8) - 8).to(dy.dtype), input_precision="ieee")
    at = dx_ptr + rows.to(tl.int64)[:, None] * d + g * 2 * HALF + lane[None]
    tl.store(at, low, (rows < n)[:, None])
    tl.store(at + HALF, high, (rows < n)[:, None])


class _Int4(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, packed, scale, tile):
        ctx.save_for_backward(packed, scale)
        ctx.tile, (M, N) = tile, tile
        (n, d), (o, groups), x = x.shape, scale.shape, x.contiguous()
        y = torch.empty(n, o, dtype=x.dtype, device=x.device)
        if n:
            _forward[(-(-n // M), -(-o // N))](
                x, packed, scale, y, n, o, d, groups, M=M, N=N, HALF=d // groups // 2
            )
        return y

    @staticmethod
    def backward(ctx, dy):
        packed, scale = ctx.saved_tensors
        M, N = ctx.tile
        n, (o, groups), d, dy = len(dy), scale.shape, 2 * packed.shape[1], dy.contiguous()
        dx = torch.empty(n, d, dtype=dy.dtype, device=dy.device)
        if n:
            _backward[(-(-n // M), groups)](
                dy, packed, scale, dx, n, o, d, groups, M=M, N=N, HALF=d // groups // 2
            )
        return dx, None, None, None


def int4_matmul(
    x: Float[Tensor, "*n d"],
    packed: UInt8[Tensor, "o half"],
    scale: Float[Tensor, "o groups"],
    *,
    tile: tuple[int, int] = (16, 64),
) -> Float[Tensor, "*n o"]:
    """x Wᵀ with W from `quantize_int4`; the gradient flows to `x` alone, the weights are frozen."""
    d = 2 * packed.shape[1]
    if x.shape[-1] != d or len(scale) != len(packed) or d % scale.shape[1]:
        raise ValueError(
            f"x {tuple(x.shape)}, packed {tuple(packed.shape)} and scale {tuple(scale.shape)} must "
            "be (…, d), (o, d/2) and (o, groups)"
        )
    if backend(x, dot=True) == "torch":
        return x @ dequantize_int4(packed, scale.to(x.dtype)).T
    y = _Int4.apply(x.reshape(-1, d), packed.contiguous(), scale.contiguous(), tile)
    return y.view(*x.shape[:-1], -1)
