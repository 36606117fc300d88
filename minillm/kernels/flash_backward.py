"""The backward pass of FlashAttention: weights made again, tile by tile, from lse₂ and the scores.

    S = q kᵀ · scale · log₂e     P = 2^(S − lse₂)     D = Σ dO ⊙ O
    dV = Pᵀ dO     dS = P ⊙ (dO vᵀ − D)
    dQ = dS k · scale     dK = dSᵀ q · scale

It runs in two passes, one program a tile of keys (dK, dV), then one a tile of queries (dQ): each
makes S and dP again, 7 matrix products instead of FlashAttention-2's 5, but nothing is added up by
atomics, so two runs agree to the bit.
"""

from minillm.kernels.dispatch import jit, tl
from minillm.kernels.tiles import keep, place, take, visible


@jit
def backward_keys(
    q_ptr, k_ptr, v_ptr, do_ptr, lse_ptr, dot_ptr, dk_ptr, dv_ptr, q_starts, k_starts, t, s, share,
    p, scale, window, qb, qh, qt, kb, kh, kt, vb, vh, vt, ob, oh, ot, gb, gh, gt, lb, lh,
    CAUSAL: tl.constexpr, VARLEN: tl.constexpr, P: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Write dK and dV of one tile of keys, from all queries that see it."""
    start, group = tl.program_id(0) * N, tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    q_first, t = place(q_starts, batch, t, VARLEN)
    k_first, s = place(k_starts, batch, s, VARLEN)
    if start >= s:
        return
    keys = start + tl.arange(0, N)
    k = take(k_ptr + batch * kb + group * kh + k_first * kt, keys, kt, s, p, P)
    v = take(v_ptr + batch * vb + group * vh + k_first * vt, keys, vt, s, p, P)
    dk = tl.zeros([N, P], tl.float32)
    dv = tl.zeros([N, P], tl.float32)
    lo, hi = 0, t
    if CAUSAL:  # the first query that sees the tile's first key, the last that sees its last
        lo = tl.maximum(start - (s - t), 0) // M * M
        hi = tl.maximum(tl.minimum(t, start + N + window - (s - t)), 0)
    for head in range(group * share, group * share + share):
        q_at = q_ptr + batch * qb + head * qh + q_first * qt
        do_at = do_ptr + batch * ob + head * oh + q_first * ot
        row_at = batch * lb + head * lh + q_first
        for first in range(lo, hi, M):
            rows = first + tl.arange(0, M)
            q, do = take(q_at, rows, qt, t, p, P), take(do_at, rows, ot, t, p, P)
            lse = tl.load(lse_ptr + row_at + rows, rows < t, float("inf"))
            dot = tl.load(dot_ptr + row_at + rows, rows < t, 0.0)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
            seen = visible(rows, keys, t, s, CAUSAL, window)
            weights = tl.where(seen, tl.exp2(scores - lse[:, None]), 0.0)
            dv += tl.dot(tl.trans(weights.to(do.dtype)), do, input_precision="ieee")
            ds = tl.dot(do, tl.trans(v), input_precision="ieee") - dot[:, None]
            ds = (weights * ds).to(q.dtype)
            dk += tl.dot(tl.trans(ds), q, input_precision="ieee")
    dk *= scale * 0.6931471805599453  # scale carries log₂e for the scores; here it must not
    at = batch * gb + group * gh + k_first * gt
    keep(dk_ptr + at, dk, keys, gt, s, p, P)
    keep(dv_ptr + at, dv, keys, gt, s, p, P)


@jit
def backward_queries(
    q_ptr, k_ptr, v_ptr, do_ptr, lse_ptr, dot_ptr, dq_ptr, q_starts, k_starts, t, s, share, p,
    scale, window, qb, qh, qt, kb, kh, kt, vb, vh, vt, ob, oh, ot, lb, lh,
    CAUSAL: tl.constexpr, VARLEN: tl.constexpr, P: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Write dQ of one tile of queries, from all keys that it sees."""
    start, head = tl.program_id(0) * M, tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    q_first, t = place(q_starts, batch, t, VARLEN)
    k_first, s = place(k_starts, batch, s, VARLEN)
    if start >= t:
        return
    rows = start + tl.arange(0, M)
    q = take(q_ptr + batch * qb + head * qh + q_first * qt, rows, qt, t, p, P)
    do = take(do_ptr + batch * ob + head * oh + q_first * ot, rows, ot, t, p, P)
    lse = tl.load(lse_ptr + batch * lb + head * lh + q_first + rows, rows < t, float("inf"))
    dot = tl.load(dot_ptr + batch * lb + head * lh + q_first + rows, rows < t, 0.0)
    k_ptr += batch * kb + head // share * kh + k_first * kt
    v_ptr += batch * vb + head // share * vh + k_first * vt
    lo, hi = 0, s
    if CAUSAL:
        lo = tl.maximum(s - t + start - window + 1, 0) // N * N
        hi = tl.maximum(tl.minimum(s, s - t + start + M), 0)
    dq = tl.zeros([M, P], tl.float32)
    for first in range(lo, hi, N):
        keys = first + tl.arange(0, N)
        k, v = take(k_ptr, keys, kt, s, p, P), take(v_ptr, keys, vt, s, p, P)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = visible(rows, keys, t, s, CAUSAL, window)
        weights = tl.where(seen, tl.exp2(scores - lse[:, None]), 0.0)
        ds = tl.dot(do, tl.trans(v), input_precision="ieee") - dot[:, None]
        dq += tl.dot((weights * ds).to(k.dtype), k, input_precision="ieee")
    dq *= scale * 0.6931471805599453
    keep(dq_ptr + batch * ob + head * oh + q_first * ot, dq, rows, ot, t, p, P)
