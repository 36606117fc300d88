"""Biases on attention scores that depend on how far a key is: T5's learned buckets, and ALiBi.

A distance is key position − query position: −1 is the token before. A bias is added to the scaled
scores, `attention(..., bias=...)`; it needs no vector per position, so any length can be asked for.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.attention import scaled_dot_product_attention
from minillm.nn.linear import check_sizes


def distances(
    t: int, s: int | None = None, *, device: torch.device | str | None = None
) -> Int[Tensor, "t s"]:
    """j − (s − t + i) for query i and key j: the last query stands where the last key stands.

    Aligned to the bottom right as `causal_mask` is: with a cache, t new queries meet s ≥ t keys.
    """
    check_sizes(t=t)
    s = t if s is None else s
    queries = torch.arange(s - t, s, device=device)
    return torch.arange(s, device=device) - queries[:, None]


def t5_buckets(
    distance: Int[Tensor, "*n"],
    *,
    bidirectional: bool,
    n_buckets: int = 32,
    max_distance: int = 128,
) -> Int[Tensor, "*n"]:
    """T5's bucket of a distance: exact when near, logarithmic up to `max_distance` (Raffel 2020).

    With `bidirectional` (an encoder) half of the buckets are for later keys. Without (a decoder)
    all are for earlier ones, and later keys share bucket 0. Half of a side's m buckets hold one
    distance each; distance n ≥ m/2 goes to m/2 + ⌊ln(2n/m) / ln(2 max_distance/m) · m/2⌋, at most
    m − 1. Computed in float32, as in T5's own code.
    """
    check_sizes(n_buckets=n_buckets, max_distance=max_distance)
    side = n_buckets // 2 if bidirectional else n_buckets
    exact = side // 2
    if n_buckets % 2 or exact < 1 or max_distance <= exact:
        raise ValueError(
            f"n_buckets {n_buckets} must be even and at least {4 if bidirectional else 2}, and "
            f"max_distance {max_distance} above the {exact} distances with a bucket of their own"
        )
    n = distance.abs() if bidirectional else (-distance).clamp(min=0)
    depth = (n.clamp(min=1).float() / exact).log() / math.log(max_distance / exact)
    far = exact + (depth * (side - exact)).long()
    bucket = torch.where(n < exact, n, far.clamp(max=side - 1))
    return bucket + side * (distance > 0) if bidirectional else bucket


class RelativeBias(nn.Module):
    """One trained number per bucket and head, added to the scores (Raffel et al. 2020, 2.1).

    T5 makes it once and adds it in every layer; it goes without the usual 1/√p.
    """

    def __init__(
        self,
        n_heads: int,
        *,
        bidirectional: bool,
        n_buckets: int = 32,
        max_distance: int = 128,
    ) -> None:
        super().__init__()
        check_sizes(n_heads=n_heads)
        self.options = dict(
            bidirectional=bidirectional, n_buckets=n_buckets, max_distance=max_distance
        )
        t5_buckets(torch.zeros(1, dtype=torch.long), **self.options)  # raises when they do not fit
        self.weight = nn.Parameter(torch.randn(n_buckets, n_heads) * 0.02)

    def forward(self, distance: Int[Tensor, "*b t s"]) -> Float[Tensor, "*b h t s"]:
        """Return the bias of every head for the pairs at these distances."""
        return self.weight[t5_buckets(distance, **self.options)].movedim(-1, -3)


def alibi_slopes(n_heads: int) -> Float[Tensor, " h"]:
    """2^(−8/n), 2^(−16/n), … 2^(−8) for n heads, a power of two (Press et al. 2022, 3); float64.

    For other numbers, as in the authors' code: the slopes of the power of two below, then those of
    the power of two above that lie between them, every second one, from the steepest.
    """
    check_sizes(n_heads=n_heads)
    below = 1 << (n_heads.bit_length() - 1)
    power = torch.arange(1, below + 1, dtype=torch.float64) * 8 / below
    between = torch.arange(1, 2 * below, 2, dtype=torch.float64) * 8 / (2 * below)
    return 2.0 ** -torch.cat([power, between[: n_heads - below]])


def alibi_bias(
    distance: Int[Tensor, "*b t s"],
    slopes: Float[Tensor, " h"],
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*b h t s"]:
    """−slope · |distance|: the farther a key, the lower its score (Press et al. 2022, 3).

    Adding the same number to all scores of a query changes nothing, so slope · key position, as in
    BLOOM, is the same under a causal mask. In PyTorch's default dtype unless `dtype` is given.
    """
    if slopes.ndim != 1:
        raise ValueError(f"slopes must be one number a head, got shape {tuple(slopes.shape)}")
    bias = -slopes.to(distance.device)[:, None, None] * distance.abs()[..., None, :, :]
    return bias.to(dtype or torch.get_default_dtype())


def alibi_attention(
    n_heads: int,
    *,
    attention: Callable[..., Tensor] = scaled_dot_product_attention,
    strength: float | int = 1.0,
) -> Callable[..., Tensor]:
    """The operation `attention` with ALiBi's bias on the scores of its `n_heads` heads.

    To hand in as `MultiHeadAttention(attention=…)`. The bias counts tokens between query and key,
    so padding and a cache change nothing. Falcon adds the bias before the scores are divided by √p:
    there `strength` is 1/√p.
    """
    slopes = alibi_slopes(n_heads) * strength

    def attend(
        q: Float[Tensor, "b h t p"],
        k: Float[Tensor, "b g s p"],
        v: Float[Tensor, "b g s p"],
        mask: Bool[Tensor, "*#bh #t s"] | None = None,
        *,
        bias: Float[Tensor, "*#bh #t #s"] | None = None,
        **options: Any,
    ) -> Float[Tensor, "b h t p"]:
        """softmax(q kᵀ · scale − slope · distance + bias) v."""
        if q.shape[1] != n_heads:
            raise ValueError(f"q has {q.shape[1]} heads and the bias {n_heads}: give as many")
        distance = distances(q.shape[2], k.shape[2], device=q.device)
        near = alibi_bias(distance, slopes, q.dtype)
        return attention(q, k, v, mask, bias=near if bias is None else near + bias, **options)

    return attend
