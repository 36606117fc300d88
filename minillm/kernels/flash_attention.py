"""FlashAttention (Dao et al. 2022; FlashAttention-2, Dao 2023): softmax(q kᵀ/√p) v in tiles.

    S = q kᵀ · scale · log₂e     m′ = max(m, max S)     P = 2^(S − m′)     for a tile of keys,
    l ← l · 2^(m − m′) + Σ P     acc ← acc · 2^(m − m′) + P v              then m ← m′,
    out = acc / l                lse₂ = m + log₂ l                         behind the last one

The t × s scores never leave the processor: a tile of queries stays in registers, tiles of keys and
values pass by, and the softmax is corrected whenever a larger score turns up. For the
backward pass, `kernels.flash_backward`, lse₂ is all that is kept.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, power_of_two, tl
from minillm.kernels.flash_backward import backward_keys, backward_queries
from minillm.kernels.tiles import keep, place, take, visible
from minillm.nn.attention import check_qkv
from minillm.nn.ops import torch_attention

# (queries, keys) of a tile by the width of a head, forward and backward: what the registers and the
# shared memory of an A100 hold, as `kernels.compiling` shows; in float32, without tensor cores, the
# backward pass of wide heads still spills
TILES = {64: ((128, 64), (128, 64)), 128: ((128, 64), (64, 64)), 256: ((64, 32), (32, 32))}
TILES_32 = {64: ((32, 32), (32, 32)), 128: ((32, 32), (16, 16)), 256: ((16, 16), (16, 16))}
LOG2E = math.log2(math.e)


@jit
def _pass(
    acc, total, high, q, k_ptr, v_ptr, kt, vt, rows, t, s, p, scale, window, lo, hi,
    CAUSAL: tl.constexpr, MASKED: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Let the keys from lo to hi pass by a tile of queries."""
    for first in range(lo, hi, N):
        keys = first + tl.arange(0, N)
        k, v = take(k_ptr, keys, kt, s, p, P), take(v_ptr, keys, vt, s, p, P)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if MASKED:
            seen = visible(rows, keys, t, s, CAUSAL, window)
            scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(high, tl.max(scores, 1))
        safe = tl.where(higher == -float("inf"), 0.0, higher)  # no key yet: not −∞ − −∞
        weights = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(high - safe)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        high = higher
    return acc, total, high


@jit
def _forward(
    q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, q_starts, k_starts, t, s, share, p, scale, window,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, ob, oh, ot, lb, lh,
    CAUSAL: tl.constexpr, VARLEN: tl.constexpr, P: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    start, head = tl.program_id(0) * M, tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    q_first, t = place(q_starts, batch, t, VARLEN)
    k_first, s = place(k_starts, batch, s, VARLEN)
    if start >= t:
        return
    rows = start + tl.arange(0, M)
    q = take(q_ptr + batch * qb + head * qh + q_first * qt, rows, qt, t, p, P)
    k_ptr += batch * kb + head // share * kh + k_first * kt
    v_ptr += batch * vb + head // share * vh + k_first * vt
    lo, hi, full_lo, full_hi = 0, s, 0, s // N * N
    if CAUSAL:  # tiles at both ends are masked, those between are seen whole by every query
        stand = s - t + start
        hi = tl.maximum(tl.minimum(s, stand + M), 0)
        lo = tl.maximum(stand - window + 1, 0) // N * N
        full_lo = tl.minimum((tl.maximum(stand + M - window, 0) + N - 1) // N * N, hi)
        full_lo = tl.maximum(full_lo, lo)
        full_hi = tl.maximum(tl.maximum(tl.minimum(stand + 1, s), 0) // N * N, full_lo)
    high = tl.full([M], -float("inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, P], tl.float32)
    if CAUSAL:
        acc, total, high = _pass(
            acc, total, high, q, k_ptr, v_ptr, kt, vt, rows, t, s, p, scale, window, lo, full_lo,
            CAUSAL, True, P, N,
        )  # fmt: skip
    acc, total, high = _pass(
        acc, total, high, q, k_ptr, v_ptr, kt, vt, rows, t, s, p, scale, window, full_lo, full_hi,
        CAUSAL, False, P, N,
    )  # fmt: skip
    acc, total, high = _pass(
        acc, total, high, q, k_ptr, v_ptr, kt, vt, rows, t, s, p, scale, window, full_hi, hi,
        CAUSAL, True, P, N,
    )  # fmt: skip
    empty = total == 0
    total = tl.where(empty, 1.0, total)
    o_ptr += batch * ob + head * oh + q_first * ot
    keep(o_ptr, acc / total[:, None], rows, ot, t, p, P)  # a query without a key gets 0
    lse = tl.where(empty, float("inf"), high + tl.log2(total))
    tl.store(lse_ptr + batch * lb + head * lh + q_first + rows, lse, rows < t)


class _Flash(torch.autograd.Function):
    """On q (b, h, t, p) and k, v (b, g, s, p); packed sequences come as b = 1 with their starts."""

    @staticmethod
    def forward(ctx, q, k, v, starts, longest, causal, window, scale, tile):
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        b, h, t, p = q.shape
        out = torch.empty(b, t, h, p, dtype=q.dtype, device=q.device).transpose(1, 2)
        lse = torch.empty(b, h, t, dtype=torch.float32, device=q.device)
        ctx.options = (longest, causal, window, scale, tile)
        grid, numbers, kinds = _options(q, k, starts, *ctx.options)
        if q.numel():
            strides = [*_strides(q, starts), *_strides(k, starts), *_strides(v, starts)]
            rows = (0 if starts else lse.stride(0), lse.stride(1))
            _forward[grid("M", h)](
                q, k, v, out, lse, *_pointers(starts, q), *numbers, *strides,
                *_strides(out, starts), *rows, **kinds,
            )  # fmt: skip
        ctx.save_for_backward(q, k, v, out, lse, *(starts or ()))
        return out

    @staticmethod
    def backward(ctx, do):
        q, k, v, out, lse, *starts = ctx.saved_tensors
        do = do.to(q.dtype)
        do = do if do.stride() == out.stride() else torch.empty_like(out).copy_(do)
        dot = (do.float() * out.float()).sum(-1)  # (b, h, t): D, one number a query
        dot = torch.empty_like(lse).copy_(dot)
        dq, dk, dv = (
            torch.empty_like(out),
            *(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, k)),
        )
        grid, numbers, kinds = _options(q, k, starts, *ctx.options, backward=True)
        if not q.numel() or not k.numel():
            return dq.zero_(), dk.zero_(), dv.zero_(), *[None] * 6
        h, g = q.shape[1], k.shape[1]
        strides = [*_strides(q, starts), *_strides(k, starts), *_strides(v, starts)]
        strides += _strides(out, starts)
        rows = (0 if starts else lse.stride(0), lse.stride(1))
        shared = (*_pointers(starts, q), *numbers, *strides)
        backward_keys[grid("N", g)](
            q, k, v, do, lse, dot, dk, dv, *shared, *_strides(dk, starts), *rows, **kinds
        )
        backward_queries[grid("M", h)](q, k, v, do, lse, dot, dq, *shared, *rows, **kinds)
        return dq, dk, dv, *[None] * 6


def _strides(x: Tensor, starts: object) -> tuple[int, int, int]:
    """Of batch, heads and rows; packed sequences lie in one batch row."""
    return (0 if starts else x.stride(0), x.stride(1), x.stride(2))


def _pointers(starts: object, q: Tensor) -> tuple[Tensor, Tensor]:
    """Where the packed sequences start; any tensor where there are none."""
    return tuple(starts) if starts else (q, q)


def _options(q, k, starts, longest, causal, window, scale, tile, backward=False):
    """Grid by tile and heads, the numbers a kernel takes, and its constants."""
    (b, h, t, p), (_, g, s, _) = q.shape, k.shape
    P = max(power_of_two(p), 16)
    usual = TILES_32 if q.dtype == torch.float32 else TILES
    M, N = tile or usual[min(max(P, 64), 256)][backward]
    sequences = len(starts[0]) - 1 if starts else b
    most = longest or (t, s)
    sizes = {"M": -(-most[0] // M), "N": -(-most[1] // N)}
    scale = (p**-0.5 if scale is None else scale) * LOG2E
    numbers = (t, s, h // g, p, scale, window or s + t + 1)
    kinds = {"CAUSAL": causal, "VARLEN": bool(starts), "P": P, "M": M, "N": N}
    kinds |= {"num_warps": 4 if M * P <= 64 * 64 else 8, "num_stages": 2}
    return lambda which, heads: (sizes[which], heads, sequences), numbers, kinds


def flash_attention(
    q: Float[Tensor, "b h t p"],
    k: Float[Tensor, "b g s p"],
    v: Float[Tensor, "b g s p"],
    mask: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    window: int | None = None,
    tile: tuple[int, int] | None = None,
) -> Float[Tensor, "b h t p"]:
    """softmax(q kᵀ · scale) v by tiles of (queries, keys): `scaled_dot_product_attention`'s kernel.

    Causal is aligned to the bottom right; `window` keeps the last keys of a causal query, its own
    among them. g < h heads of keys and values serve h/g query heads each. A mask, a bias or
    dropout is not for this kernel: those calls go to PyTorch's own (inside `use("triton")`, which
    promises the kernel, they are a ValueError).
    """
    check_qkv(q, k, v, mask, bias)
    if window is not None and (not causal or window < 1):
        raise ValueError(f"window {window}: a window of at least 1 key goes with causal=True")
    asked = {"a mask": mask is not None, "a bias": bias is not None, "dropout": dropout > 0}
    beyond = " and ".join(name for name, given in asked.items() if given)
    if backend(q, dot=True, beyond=beyond) == "torch":
        if window is not None:
            near = _window_mask(q.shape[2], k.shape[2], window, q.device)
            mask = near if mask is None else mask & near
        return torch_attention(
            q, k, v, mask, bias=bias, causal=causal, scale=scale, dropout=dropout
        )
    return _Flash.apply(q, k, v, None, None, causal, window, scale, tile)


def _window_mask(t: int, s: int, window: int, device: torch.device) -> Tensor:
    gap = torch.arange(s - t, s, device=device)[:, None] - torch.arange(s, device=device)
    return gap < window


def flash_attention_varlen(
    q: Float[Tensor, "n h p"],
    k: Float[Tensor, "m g p"],
    v: Float[Tensor, "m g p"],
    q_starts: Int[Tensor, " c"],
    k_starts: Int[Tensor, " c"],
    *,
    longest: tuple[int, int],
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    tile: tuple[int, int] | None = None,
) -> Float[Tensor, "n h p"]:
    """Attention within each of several sequences that lie one after the other, without padding.

    Sequence i has the queries `q_starts[i]` … `q_starts[i + 1]` − 1, the last entry being n, and
    keys likewise. `longest` are the most queries and the most keys that one sequence has.
    """
    if q_starts.shape != k_starts.shape or len(q_starts) < 2:
        raise ValueError(
            f"q_starts {tuple(q_starts.shape)} and k_starts {tuple(k_starts.shape)} must hold one "
            "start a sequence and the end"
        )
    if window is not None and (not causal or window < 1):
        raise ValueError(f"window {window}: a window of at least 1 key goes with causal=True")
    if backend(q, dot=True) == "torch":
        return _one_by_one(q, k, v, q_starts, k_starts, causal, window, scale)
    starts = (q_starts.to(torch.int64), k_starts.to(torch.int64))
    packed = (x.transpose(0, 1)[None] for x in (q, k, v))
    out = _Flash.apply(*packed, starts, longest, causal, window, scale, tile)
    return out[0].transpose(0, 1)


def _one_by_one(q, k, v, q_starts, k_starts, causal, window, scale) -> Tensor:
    """The sequences in turn through PyTorch's attention."""
    ends = zip(
        q_starts.tolist(),
        q_starts.tolist()[1:],
        k_starts.tolist(),
        k_starts.tolist()[1:],
        strict=False,
    )
    parts = []
    for a, b, c, d in ends:
        one = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
        out = flash_attention(*one, causal=causal, window=window, scale=scale)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)
