"""Sparse causal attention that computes only the scores it needs (Child et al. 2019).

A pattern says which keys a query may see, and cuts queries and keys into groups: within a group
every query meets every key, between groups nothing is computed. Positions count from 0; with a
cache the t queries are the last t of s positions, as in `causal_mask`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.attention import check_qkv
from minillm.nn.linear import check_sizes


@runtime_checkable
class Pattern(Protocol):
    """Which keys a query may see, and how to cut the work into groups."""

    def allows(self, i: Int[Tensor, "*#n"], j: Int[Tensor, "*#n"]) -> Bool[Tensor, "*#n"]:
        """Whether the query at position i may see the key at position j."""
        ...

    def groups(self, t: int, s: int) -> tuple[Int[Tensor, "n r"], Int[Tensor, "n c"]]:
        """Rows: query numbers of each group; columns: positions of its keys.

        Every query is in one group, with all keys it may see. Numbers out of range fill up.
        """
        ...


@dataclass(frozen=True)
class Window:
    """The last `window` positions, the query's own among them (Mistral; GPT-Neo's local layers)."""

    window: int

    def allows(self, i: Int[Tensor, "*#n"], j: Int[Tensor, "*#n"]) -> Bool[Tensor, "*#n"]:
        """0 ≤ i - j < window."""
        return (j <= i) & (i - j < self.window)

    def groups(self, t: int, s: int) -> tuple[Int[Tensor, "n r"], Int[Tensor, "n c"]]:
        """Blocks of `window` queries, each with the keys from window - 1 before its first one."""
        size = min(self.window, t)
        first = torch.arange(0, t, size)[:, None]
        back = min(self.window - 1, s - t + int(first[-1]))
        return first + torch.arange(size), s - t + first + torch.arange(-back, size)


@dataclass(frozen=True)
class EveryNth:
    """Every `stride`-th position back from the query, which comes first (Child et al., 4.3)."""

    stride: int

    def allows(self, i: Int[Tensor, "*#n"], j: Int[Tensor, "*#n"]) -> Bool[Tensor, "*#n"]:
        """j ≤ i, and i - j a multiple of the stride."""
        return (j <= i) & ((i - j) % self.stride == 0)

    def groups(self, t: int, s: int) -> tuple[Int[Tensor, "n r"], Int[Tensor, "n c"]]:
        """The positions with one remainder modulo the stride: dense attention among themselves."""
        first = torch.arange(min(self.stride, t))[:, None]
        queries = first + self.stride * torch.arange(math.ceil(t / self.stride))
        keys = self.stride * torch.arange(math.ceil(s / self.stride))
        return queries, (s - t + first) % self.stride + keys


@dataclass(frozen=True)
class Block:
    """The query's own block of `size` positions, up to itself (Child et al., 4.3, fixed)."""

    size: int

    def allows(self, i: Int[Tensor, "*#n"], j: Int[Tensor, "*#n"]) -> Bool[Tensor, "*#n"]:
        """j ≤ i, and both in one block."""
        return (j <= i) & (i // self.size == j // self.size)

    def groups(self, t: int, s: int) -> tuple[Int[Tensor, "n r"], Int[Tensor, "n c"]]:
        """The blocks; where there are few new queries, each alone with its block."""
        if t < self.size:
            rows, blocks = torch.arange(t)[:, None], torch.arange(s - t, s) // self.size
        else:
            blocks = torch.arange((s - t) // self.size, (s - 1) // self.size + 1)
            rows = blocks[:, None] * self.size + torch.arange(self.size) - (s - t)
        return rows, blocks[:, None] * self.size + torch.arange(self.size)


@dataclass(frozen=True)
class Summaries:
    """The last `kept` positions of every block of `size` positions (Child et al., 4.3, fixed)."""

    size: int
    kept: int

    def allows(self, i: Int[Tensor, "*#n"], j: Int[Tensor, "*#n"]) -> Bool[Tensor, "*#n"]:
        """j ≤ i, and j among the last of its block."""
        return (j <= i) & (j % self.size >= self.size - self.kept)

    def groups(self, t: int, s: int) -> tuple[Int[Tensor, "n r"], Int[Tensor, "n c"]]:
        """One group: all queries, and nothing but the summary positions."""
        first = self.size - self.kept
        keys = torch.arange(first, max(s, first + 1))
        return torch.arange(t)[None], keys[keys % self.size >= first][None]


class SparseAttention:
    """softmax(q kᵀ/√p) v over the union of `patterns`, at the price of their groups alone.

    An operation with the signature of `scaled_dot_product_attention`, to hand in as `attention=`.
    Each pattern gives a maximum, a sum and a weighted sum of values for every query; they are
    joined as if one softmax had run over all keys. A pair in two patterns counts once.
    """

    def __init__(self, *patterns: Pattern) -> None:
        if not patterns:
            raise ValueError("no pattern given; for a window of 4 write SparseAttention(Window(4))")
        for pattern in patterns:
            check_sizes(**vars(pattern))
        self.patterns = patterns

    def mask(self, t: int, s: int | None = None) -> Bool[Tensor, "t s"]:
        """The same pairs as a mask for dense attention."""
        s = t if s is None else s
        i, j = torch.arange(s - t, s)[:, None], torch.arange(s)
        return torch.stack([pattern.allows(i, j) for pattern in self.patterns]).any(0)

    def n_scores(self, t: int, s: int | None = None) -> int:
        """Products q·k computed for each head: what is paid, where `mask(t, s).sum()` is used."""
        cut = (pattern.groups(t, t if s is None else s) for pattern in self.patterns)
        return sum(rows.numel() * columns.shape[1] for rows, columns in cut)

    def __call__(
        self,
        q: Float[Tensor, "b h t p"],
        k: Float[Tensor, "b g s p"],
        v: Float[Tensor, "b g s p"],
        mask: Bool[Tensor, "*#bh #t s"] | None = None,
        *,
        bias: Float[Tensor, "*#bh #t #s"] | None = None,
        causal: bool = True,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "b h t p"]:
        """Attend; `mask` hides more keys, `bias` is added to the scaled scores."""
        check_qkv(q, k, v, mask, bias)
        if not causal:
            raise ValueError("these patterns look back only: call with causal=True")
        share = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        q = q * (1 / math.sqrt(q.shape[3]) if scale is None else scale)
        parts = [self._part(n, q, k, v, mask, bias, dropout) for n in range(len(self.patterns))]
        top = torch.stack([high for high, _, _ in parts]).amax(0)
        total = sum((high - top).exp() * weight for high, weight, _ in parts)
        out = sum((high - top).exp() * values for high, _, values in parts)
        return out / (total + (total == 0))  # no key at all: 0, not 0/0

    def _part(self, n, q, k, v, mask, bias, dropout) -> tuple[Tensor, Tensor, Tensor]:
        """Pattern n alone: for each query the largest score, Σ exp, and Σ exp · value."""
        t, s = q.shape[2], k.shape[2]
        rows, columns = (x.to(q.device) for x in self.patterns[n].groups(t, s))
        i, j = rows[..., None] + s - t, columns[:, None]
        allowed = self.patterns[n].allows(i, j) & (j >= 0) & (j < s)
        for earlier in self.patterns[:n]:
            allowed = allowed & ~earlier.allows(i, j)
        real, columns = (rows >= 0) & (rows < t), columns.clamp(0, s - 1)
        order = torch.empty(t, dtype=torch.long, device=q.device)  # where in the groups query i is
        order[rows[real]] = real.flatten().nonzero()[:, 0]
        rows = rows.clamp(0, t - 1)

        def pairs(x: Tensor) -> Tensor:
            """Entries of a (…, t, s) table at the pairs of the groups."""
            return x.expand(*x.shape[:-2], t, s)[..., rows[..., None], columns[:, None]]

        scores = q[:, :, rows] @ k[:, :, columns].mT  # (b, h, groups, rows, columns)
        scores = scores if bias is None else scores + pairs(torch.atleast_2d(bias))
        allowed = allowed if mask is None else allowed & pairs(torch.atleast_2d(mask))
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        high = scores.detach().amax(-1, keepdim=True)
        weights = (scores - high).exp().masked_fill(~allowed, 0.0)
        total = weights.sum(-1, keepdim=True)
        values = F.dropout(weights, dropout) @ v[:, :, columns]
        return tuple(x.flatten(2, 3)[:, :, order] for x in (high, total, values))


def sliding_window(window: int) -> SparseAttention:
    """Attention to the last `window` tokens, the query's own among them."""
    return SparseAttention(Window(window))


def strided(stride: int) -> SparseAttention:
    """The Sparse Transformer's strided pattern in one head: the near tokens, and every n-th."""
    return SparseAttention(Window(stride), EveryNth(stride))


def fixed(size: int, kept: int = 1) -> SparseAttention:
    """The Sparse Transformer's fixed pattern in one head: own block, and all blocks' summaries."""
    if kept > size:
        raise ValueError(f"kept is {kept}, but a block has {size} positions; keep at most as many")
    return SparseAttention(Block(size), Summaries(size, kept))


def alternate(blocks: Iterable[nn.Module], *attentions: Callable[..., Tensor]) -> None:
    """Give layer i the operation `attentions[i mod n]`: dense and banded in turn as in GPT-3.

    `alternate(model.blocks, scaled_dot_product_attention, sliding_window(256))` makes layers
    0, 2, … dense and 1, 3, … banded (Brown et al. 2020, 2.1; GPT-Neo).
    """
    if not attentions:
        raise ValueError("no attention given; name one operation or more, to be used in turn")
    for block, attention in zip(blocks, cycle(attentions), strict=False):
        block.attention.attention = attention
