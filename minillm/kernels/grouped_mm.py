"""One matrix product for each expert of a mixture, in one launch, without padding.

    rows of x are sorted by expert, `counts[e]` of them are expert e's:   y_r = x_r W_eᵀ
    dx_r = dy_r W_e        dW_e = Σ_r dy_rᵀ x_r

How many rows an expert gets is known on the device only. The grid is large enough for any split;
each program finds its expert by walking over the counts, and programs left over return at once.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, tl


def grouped_mm_reference(
    x: Float[Tensor, "n d"], weight: Float[Tensor, "e o d"], counts: Int[Tensor, " e"]
) -> Float[Tensor, "n o"]:
    """The products one after the other."""
    parts = x.split(counts.tolist())
    return torch.cat([part @ w.T for part, w in zip(parts, weight, strict=True)])


@jit
def _rows(
    x_ptr, w_ptr, counts_ptr, y_ptr, experts, n_out, k, we, wn, wk,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    tile, expert, first, count = tl.program_id(0), -1, 0, 0
    skipped, start = 0, 0
    for e in range(experts):  # the expert whose tiles this program's number falls among
        size = tl.load(counts_ptr + e).to(tl.int32)
        tiles = tl.cdiv(size, M)
        mine = (tile >= skipped) & (tile < skipped + tiles)
        expert = tl.where(mine, e, expert)
        first = tl.where(mine, start + (tile - skipped) * M, first)
        count = tl.where(mine, start + size, count)
        skipped += tiles
        start += size
    if expert < 0:
        return
    rows = first + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    w_at = w_ptr + tl.cast(expert, tl.int64) * we + columns[:, None] * wn
    acc = tl.zeros([M, N], tl.float32)
    for at in range(0, k, K):
        inner = at + tl.arange(0, K)
        inside = (rows < count)[:, None] & (inner < k)[None]
        x = tl.load(x_ptr + rows.to(tl.int64)[:, None] * k + inner[None], inside, 0.0)
        w = tl.load(w_at + inner[None] * wk, (columns < n_out)[:, None] & (inner < k)[None], 0.0)
        acc += tl.dot(x, tl.trans(w), input_precision="ieee")
    inside = (rows < count)[:, None] & (columns < n_out)[None]
    tl.store(y_ptr + rows.to(tl.int64)[:, None] * n_out + columns[None], acc, inside)


@jit
def _weights(
    x_ptr, dy_ptr, counts_ptr, dw_ptr, n_out, d,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    expert, start = tl.program_id(0), 0
    for e in range(expert):
        start += tl.load(counts_ptr + e).to(tl.int32)
    end = start + tl.load(counts_ptr + expert).to(tl.int32)
    out = tl.program_id(1) * N + tl.arange(0, N)
    inner = tl.program_id(2) * K + tl.arange(0, K)
    acc = tl.zeros([N, K], tl.float32)
    for first in range(start, end, M):
        rows = first + tl.arange(0, M)
        at = rows.to(tl.int64)[:, None]
        dy = tl.load(
            dy_ptr + at * n_out + out[None], (rows < end)[:, None] & (out < n_out)[None], 0.0
        )
        x = tl.load(x_ptr + at * d + inner[None], (rows < end)[:, None] & (inner < d)[None], 0.0)
        acc += tl.dot(tl.trans(dy), x, input_precision="ieee")
    at = (expert.to(tl.int64) * n_out + out[:, None]) * d + inner[None]
    tl.store(dw_ptr + at, acc, (out < n_out)[:, None] & (inner < d)[None])


def _multiply(x: Tensor, weight: Tensor, counts: Tensor, tile: tuple[int, int, int]) -> Tensor:
    """Rows of x times the matrices (e, o, d), which may be transposed views."""
    M, N, K = tile
    (n, d), (e, o, _) = x.shape, weight.shape
    y = torch.empty(n, o, dtype=x.dtype, device=x.device)
    if y.numel():
        _rows[(-(-n // M) + e, -(-o // N))](
            x, weight, counts, y, e, o, d, *weight.stride(), M=M, N=N, K=K, num_warps=4
        )
    return y


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, counts, tile):
        x = x.contiguous()
        ctx.save_for_backward(x, weight, counts)
        ctx.tile = tile
        return _multiply(x, weight, counts, tile)

    @staticmethod
    def backward(ctx, dy):
        x, weight, counts = ctx.saved_tensors
        dy, dx, dw = dy.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            dx = _multiply(dy, weight.transpose(1, 2), counts, ctx.tile)
        if ctx.needs_input_grad[1]:
            (e, o, d), (M, N, K) = weight.shape, ctx.tile
            dw = torch.empty(e, o, d, dtype=weight.dtype, device=x.device)
            _weights[(e, -(-o // N), -(-d // K))](
                x, dy, counts, dw, o, d, M=M, N=N, K=K, num_warps=4
            )
        return dx, dw, None, None


def grouped_mm(
    x: Float[Tensor, "n d"],
    weight: Float[Tensor, "e o d"],
    counts: Int[Tensor, " e"],
    *,
    tile: tuple[int, int, int] | None = None,
) -> Float[Tensor, "n o"]:
    """Rows of `x`, sorted by expert, times their expert's matrix; `counts` must add up to n.

    `tile` are rows, columns and inner numbers of a program's tile, powers of two from 16. On a GPU
    nobody waits for the counts, so that a wrong sum is not noticed there.
    """
    if len(counts) != len(weight) or x.shape[1] != weight.shape[2]:
        raise ValueError(
            f"x {tuple(x.shape)}, weight {tuple(weight.shape)} and counts {tuple(counts.shape)} "
            "must be (n, d), (experts, o, d) and (experts,)"
        )
    if not x.is_cuda and int(counts.sum()) != len(x):
        raise ValueError(f"counts add up to {int(counts.sum())}, but x has {len(x)} rows")
    if backend(x, dot=True) == "torch":
        return grouped_mm_reference(x, weight, counts)
    default = (64, 64, 64) if x.dtype != torch.float32 else (32, 32, 32)
    return _Grouped.apply(x, weight, counts, tile or default)
