"""Rotations by two positions at once: place in the text, place in the block (ChatGLM-6B, 2023)."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.nn.rotary import Rotary, rotate_halves


class BlockRotary(nn.Module):
    """Half of each head is turned by the place in the text, the other half by that in the block.

    A score then depends on both differences and on nothing else, ⟨R q, R k⟩ = f(Δtext) + g(Δblock).
    `frequencies` serve both halves: `rotary_frequencies(d_head // 2)`.
    """

    def __init__(
        self,
        frequencies: Float[Tensor, " f"],
        *,
        rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate_halves,
    ) -> None:
        super().__init__()
        self.turn = Rotary(frequencies, rotate=rotate)

    def forward(
        self, x: Float[Tensor, "b h t p"], positions: Int[Tensor, "#b *two t"]
    ) -> Float[Tensor, "b h t p"]:
        """Turn queries or keys; `positions` (b, 2, t) hold both places, (b, t) the first alone."""
        text = positions[:, 0] if positions.ndim == 3 else positions
        block = positions[:, 1] if positions.ndim == 3 else torch.zeros_like(positions)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([self.turn(first, text), self.turn(second, block)], dim=-1)
