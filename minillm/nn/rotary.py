"""Rotary positions, RoPE (Su et al. 2021): queries and keys turned by angles that grow with place.

Every pair of numbers in a head is a point in a plane, turned by position · frequency. Two layouts
say which numbers make a pair: (0, f), (1, f + 1), … with f pairs, in *halves* (GPT-NeoX; LLaMA in
transformers), or neighbors (0, 1), (2, 3), …, in *pairs* (the paper, GPT-J, GLM, LLaMA's own code).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.nn.linear import check_sizes


def rotary_frequencies(d_rotary: int, *, base: float | int = 10000.0) -> Float[Tensor, " f"]:
    """θᵢ = base^(−2i/p), i = 0 … p/2 − 1, in radians per token (Su et al. 2021, 3.2.2); float64.

    `d_rotary` is p, the numbers of a head that are turned: all of them, or fewer for partial RoPE.
    """
    check_sizes(d_rotary=d_rotary)
    if d_rotary % 2:
        raise ValueError(f"d_rotary {d_rotary} is odd; rotations act on pairs, use an even number")
    if not 1 < base < math.inf:
        raise ValueError(f"base must be a number above 1, such as 10000, got {base}")
    return float(base) ** (-torch.arange(0, d_rotary, 2, dtype=torch.float64) / d_rotary)


def rotate_halves(
    x: Float[Tensor, "b h t p"], cos: Float[Tensor, "#b t f"], sin: Float[Tensor, "#b t f"]
) -> Float[Tensor, "b h t p"]:
    """(xᵢ, xᵢ₊f) ← (xᵢ cos − xᵢ₊f sin, xᵢ sin + xᵢ₊f cos); numbers from 2f on stay as they are."""
    f = cos.shape[-1]
    cos, sin = cos[:, None], sin[:, None]
    first, second, rest = x[..., :f], x[..., f : 2 * f], x[..., 2 * f :]
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)


def rotate_pairs(
    x: Float[Tensor, "b h t p"], cos: Float[Tensor, "#b t f"], sin: Float[Tensor, "#b t f"]
) -> Float[Tensor, "b h t p"]:
    """(x₂ᵢ, x₂ᵢ₊₁) turned by angle i (Su et al. 2021, 3.4.2); numbers from 2f on stay."""
    f = cos.shape[-1]
    cos, sin = cos[:, None], sin[:, None]
    first, second, rest = x[..., 0 : 2 * f : 2], x[..., 1 : 2 * f : 2], x[..., 2 * f :]
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return torch.cat([turned.flatten(-2), rest], dim=-1)


class Rotary(nn.Module):
    """x at position m ← R_m x, pair i turned by m θᵢ, so that ⟨R_m q, R_n k⟩ depends on m − n only.

    Args:
        frequencies: θ, one number a pair; 2f of the p numbers of a head are turned (f ≤ p/2).
        rotate: the layout, `rotate_halves` or `rotate_pairs`.
        scale: multiplies what is turned; YaRN's temperature is `yarn_scale(factor)`.

    Angles are computed in float64 whatever the type of `x`: a float16 has no number between 2048
    and 2050. For the same reason `.half()` and `.bfloat16()` leave the frequencies as they are.
    """

    def __init__(
        self,
        frequencies: Float[Tensor, " f"],
        *,
        rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate_halves,
        scale: float | int = 1.0,
    ) -> None:
        super().__init__()
        shaped = frequencies.ndim == 1 and len(frequencies) > 0
        if not shaped or not (frequencies.is_meta or torch.isfinite(frequencies).all()):
            raise ValueError(
                "frequencies must be finite numbers in one axis, as rotary_frequencies returns "
                f"them, got {tuple(frequencies.shape)}"
            )
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be a number above 0, got {scale}")
        self.rotate, self.scale = rotate, scale
        self.register_buffer("frequencies", frequencies.double(), persistent=False)

    def forward(
        self, x: Float[Tensor, "b h t p"], positions: Int[Tensor, "#b t"]
    ) -> Float[Tensor, "b h t p"]:
        """Turn `x`, queries or keys, each row by its position."""
        return turn(x, positions, self.frequencies, self.rotate, self.scale)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Move to a device, but keep float64 when the model is cast to fewer bits."""
        exact = self.frequencies
        super()._apply(fn, recurse)
        self.frequencies = exact.to(self.frequencies.device)
        return self


def turn(
    x: Float[Tensor, "b h t p"],
    positions: Int[Tensor, "#b t"],
    frequencies: Float[Tensor, " f"],
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate_halves,
    scale: float | int = 1.0,
) -> Float[Tensor, "b h t p"]:
    """R_m x for each row of `x` and its position m: `Rotary` with everything handed in."""
    if x.ndim != 4 or 2 * len(frequencies) > x.shape[-1]:
        raise ValueError(
            f"{len(frequencies)} frequencies turn {2 * len(frequencies)} numbers of a head, and x "
            f"{tuple(x.shape)} must be (batch, heads, t, p) with p at least that"
        )
    if positions.is_floating_point() or positions.ndim != 2 or positions.shape[1] != x.shape[2]:
        raise ValueError(
            f"positions must be whole numbers of shape (batch or 1, {x.shape[2]}), got "
            f"{positions.dtype} {tuple(positions.shape)}"
        )
    angle = positions[..., None] * frequencies
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return rotate(x, cos.to(x.dtype), sin.to(x.dtype))


def pairs_from_halves(d_head: int, d_rotary: int | None = None) -> Int[Tensor, " p"]:
    """Places 0, f, 1, f + 1, …: x in halves, indexed with them, is x in neighboring pairs.

    `rotate_pairs(x[..., order], …)` equals `rotate_halves(x, …)[..., order]`.
    """
    d_rotary = d_head if d_rotary is None else d_rotary
    check_sizes(d_head=d_head, d_rotary=d_rotary)
    if d_rotary % 2 or d_rotary > d_head:
        raise ValueError(f"d_rotary must be even and at most d_head {d_head}, got {d_rotary}")
    turned = torch.arange(d_rotary).view(2, -1).T.flatten()
    return torch.cat([turned, torch.arange(d_rotary, d_head)])


def halves_to_pairs(
    weight: Float[Tensor, "r *d"], n_heads: int, d_rotary: int | None = None
) -> Float[Tensor, "r *d"]:
    """Rows of a query or key projection reordered, so that a model may turn pairs, not halves.

    Both projections must be reordered; their products, the scores, then stay the same. A bias is
    reordered in the same way. `n_heads` counts the heads of *this* projection.
    """
    return _reorder(weight, n_heads, d_rotary, inverse=False)


def pairs_to_halves(
    weight: Float[Tensor, "r *d"], n_heads: int, d_rotary: int | None = None
) -> Float[Tensor, "r *d"]:
    """The inverse of `halves_to_pairs`: from LLaMA's own files to the layout in halves."""
    return _reorder(weight, n_heads, d_rotary, inverse=True)


def _reorder(weight: Tensor, n_heads: int, d_rotary: int | None, inverse: bool) -> Tensor:
    check_sizes(n_heads=n_heads)
    if weight.shape[0] % n_heads:
        raise ValueError(f"{weight.shape[0]} rows cannot be cut into {n_heads} heads")
    order = pairs_from_halves(weight.shape[0] // n_heads, d_rotary)
    order = order.argsort() if inverse else order
    heads = weight.view(n_heads, -1, *weight.shape[1:])
    return heads[:, order.to(weight.device)].reshape(weight.shape)
