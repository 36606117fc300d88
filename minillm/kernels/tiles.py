"""Tiles of rows that attention kernels load, mask and store."""

from minillm.kernels.dispatch import jit, tl


@jit
def place(starts_ptr, sequence, length, VARLEN: tl.constexpr):
    """First row and number of rows of a sequence, among packed ones or in a batch."""
    first = 0
    if VARLEN:
        first = tl.load(starts_ptr + sequence)
        length = tl.load(starts_ptr + sequence + 1) - first
    return first, length


@jit
def visible(rows, keys, t, s, CAUSAL: tl.constexpr, window):
    """Which pairs of query and key are inside both sequences, and allowed."""
    seen = (rows < t)[:, None] & (keys < s)[None]
    if CAUSAL:  # query i stands at position s − t + i
        gap = (s - t + rows)[:, None] - keys[None]
        seen &= (gap >= 0) & (gap < window)
    return seen


@jit
def take(ptr, rows, stride, n, p, P: tl.constexpr):
    """A tile of vectors, zeros outside."""
    width = tl.arange(0, P)
    inside = (rows < n)[:, None] & (width < p)[None]
    return tl.load(ptr + rows[:, None] * stride + width[None], inside, 0.0)


@jit
def keep(ptr, value, rows, stride, n, p, P: tl.constexpr):
    """Store a tile of vectors where it is inside."""
    width = tl.arange(0, P)
    inside = (rows < n)[:, None] & (width < p)[None]
    tl.store(ptr + rows[:, None] * stride + width[None], value, inside)
