"""Longer contexts for RoPE: rules that slow the rotations down, and what each of them keeps.

A model trained on texts of `trained_len` tokens has seen each pair turn by at most
trained_len · θᵢ. At `factor` times that length it meets angles that it never saw, in the slow
pairs only: fast pairs have gone round many times. Each rule maps frequencies to frequencies.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.nn.linear import check_sizes
from minillm.nn.rotary import Rotary, rotary_frequencies, rotate_halves, turn


def position_interpolation(
    frequencies: Float[Tensor, " f"], factor: float | int
) -> Float[Tensor, " f"]:
    """θᵢ / factor: positions squeezed into the trained range (Chen et al. 2023)."""
    _check_factor(factor)
    return frequencies / factor


def ntk_aware(frequencies: Float[Tensor, " f"], factor: float | int) -> Float[Tensor, " f"]:
    """θᵢ · factor^(−2i/(p−2)): the base times factor^(p/(p−2)) (bloc97 2023).

    The first pair keeps its frequency, the last one is divided by `factor` exactly.
    """
    _check_factor(factor)
    return frequencies * float(factor) ** -_share(frequencies)


def ntk_by_parts(
    frequencies: Float[Tensor, " f"],
    factor: float | int,
    trained_len: int,
    *,
    slow: float | int = 1,
    fast: float | int = 32,
) -> Float[Tensor, " f"]:
    """(1 − γ) θ/factor + γ θ, γ rising with the turns that a pair makes (Peng et al. 2023).

    With r = trained_len · θᵢ / 2π full turns in a training text: γ = 0 up to `slow` turns
    (interpolated), 1 from `fast` turns on (left alone), and linear in r in between.
    """
    _check_factor(factor)
    check_sizes(trained_len=trained_len)
    _check_turns(slow, fast)
    turns = trained_len * frequencies / (2 * math.pi)
    keep = ((turns - slow) / (fast - slow)).clamp(0, 1)
    return (1 - keep) * frequencies / factor + keep * frequencies


def llama3_scaling(
    frequencies: Float[Tensor, " f"],
    factor: float | int = 8,
    trained_len: int = 8192,
    *,
    low: float | int = 1,
    high: float | int = 4,
) -> Float[Tensor, " f"]:
    """Llama 3.1's rule: `ntk_by_parts` with 1 and 4 turns as its borders, without a temperature.

    Published as code (Meta 2024); the defaults are Llama 3.1's, whose base is 500,000.
    """
    return ntk_by_parts(frequencies, factor, trained_len, slow=low, fast=high)


def yarn(
    frequencies: Float[Tensor, " f"],
    factor: float | int,
    trained_len: int,
    *,
    slow: float | int = 1,
    fast: float | int = 32,
) -> Float[Tensor, " f"]:
    """YaRN's frequencies as its authors' code has them; use `scale=yarn_scale(factor)` with them.

    The code's ramp is linear in the pair's *number* i between the pairs with `fast` and `slow`
    turns, rounded outwards, where the paper's formula, `ntk_by_parts`, is linear in the turns.
    """
    _check_factor(factor)
    check_sizes(trained_len=trained_len)
    _check_turns(slow, fast)
    share = _share(frequencies)  # raises unless there are two pairs
    ratio = (frequencies[1:] / frequencies[:-1]).log()
    if (frequencies <= 0).any() or not torch.allclose(ratio, ratio[:1].expand_as(ratio)):
        raise ValueError("yarn needs frequencies that fall geometrically, as rotary_frequencies")
    step, start = ratio[0].item(), frequencies[0].log().item()

    def pair_with(turns: float | int) -> float:
        """The number i, not a whole one, of the pair that makes so many turns."""
        return (math.log(2 * math.pi * turns / trained_len) - start) / step

    first = max(math.floor(pair_with(fast)), 0)
    last = min(math.ceil(pair_with(slow)), 2 * len(share) - 1)
    last = last + 0.001 if last == first else last
    index = torch.arange(len(frequencies), dtype=frequencies.dtype, device=frequencies.device)
    keep = 1 - ((index - first) / (last - first)).clamp(0, 1)
    return (1 - keep) * frequencies / factor + keep * frequencies


def yarn_scale(factor: float | int) -> float:
    """0.1 ln factor + 1 = √(1/t), the temperature's share of q and of k (Peng et al. 2023).

    Scores are multiplied by its square: a softmax over more keys is made sharper again.
    """
    _check_factor(factor)
    return 0.1 * math.log(factor) + 1


class DynamicRotary(nn.Module):
    """RoPE whose base grows with the text: base · (factor · n/trained_len − factor + 1)^(p/(p−2)).

    n is the largest position + 1, but at least `trained_len`, so shorter texts are untouched
    (emozilla 2023, in Peng et al. 2023). One call must see the positions of the whole
    text: keys that a cache turned when the text was shorter were turned with another base.
    """

    def __init__(
        self,
        d_rotary: int,
        trained_len: int,
        *,
        factor: float | int = 1,
        base: float | int = 10000.0,
        rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate_halves,
    ) -> None:
        super().__init__()
        check_sizes(trained_len=trained_len)
        _check_factor(factor)
        self.trained_len, self.factor, self.rotate = trained_len, factor, rotate
        _share(rotary_frequencies(d_rotary, base=base))
        self.rotary = Rotary(rotary_frequencies(d_rotary, base=base), rotate=rotate)

    def forward(
        self, x: Float[Tensor, "b h t p"], positions: Int[Tensor, "#b t"]
    ) -> Float[Tensor, "b h t p"]:
        """Turn `x` with the frequencies for the largest of `positions`."""
        return turn(x, positions, self.frequencies(positions), self.rotate)

    def frequencies(self, positions: Int[Tensor, "#b t"]) -> Float[Tensor, " f"]:
        """The frequencies for a text that reaches the largest of `positions`."""
        theta = self.rotary.frequencies
        length = (positions.max() + 1).clamp(min=self.trained_len).to(theta.dtype)
        growth = self.factor * length / self.trained_len - (self.factor - 1)
        return theta * growth ** -_share(theta)


def _share(frequencies: Tensor) -> Tensor:
    """2i/(p−2) of each pair: 0 for the first, 1 for the last."""
    n = len(frequencies)
    if n < 2:
        raise ValueError("one pair has no slower one beside it: use two frequencies or more")
    return torch.arange(n, dtype=frequencies.dtype, device=frequencies.device) / (n - 1)


def _check_factor(factor: float | int) -> None:
    if not 1 <= factor < math.inf:
        raise ValueError(f"factor is how many times longer, at least 1, got {factor}")


def _check_turns(slow: float | int, fast: float | int) -> None:
    if not 0 < slow < fast:
        raise ValueError(f"borders must be 0 < slow < fast turns, got {slow} and {fast}")
