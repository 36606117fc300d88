"""Positions added to token vectors: learned tables, sinusoids (Vaswani et al. 2017), GLM's two."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.nn.linear import check_sizes


def sinusoidal(n: int, d_model: int, *, base: float = 10000.0) -> Float[Tensor, "n d"]:
    """PE(pos, 2i) = sin(pos / base^(2i/d)), PE(pos, 2i+1) = cos(same) (Vaswani et al. 2017, 3.5).

    Sines and cosines alternate, as in the paper. Computed in float64, given in the default dtype.
    """
    check_sizes(n=n, d_model=d_model)
    if not 0 < base < math.inf:
        raise ValueError(f"base must be a number above 0, got {base}")
    if d_model % 2:
        raise ValueError(
            f"d_model {d_model} is odd; sines and cosines come in pairs, use an even width"
        )
    rate = base ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angle = torch.arange(n, dtype=torch.float64)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(torch.get_default_dtype())


def look_up(
    table: Float[Tensor, "n d"], ids: Int[Tensor, "b t"], what: str
) -> Float[Tensor, "b t d"]:
    """Rows `ids` of `table`; ValueError naming the ids when one is out of range.

    The check costs nothing: PyTorch makes it anyway on a CPU, and this only translates its error.
    On a GPU an id out of range stops the program there; checking first would stall every step.
    """
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{what} must be int64 or int32, got {ids.dtype}; write `ids.long()`")
    try:
        return nn.functional.embedding(ids, table)
    except IndexError as error:
        raise ValueError(
            f"{what} must lie in 0 … {len(table) - 1}, got {ids.min().item()} … {ids.max().item()}"
        ) from error


class LearnedPositions(nn.Module):
    """One trained vector per position, as in GPT and BERT; longer inputs are an error.

    Position 0 has row `offset` of the table: RoBERTa and BART keep two rows before it, which
    no token uses.
    """

    def __init__(self, max_seq_len: int, d_model: int, *, offset: int = 0) -> None:
        super().__init__()
        check_sizes(max_seq_len=max_seq_len, d_model=d_model)
        self.offset = offset
        self.weight = nn.Parameter(torch.randn(max_seq_len + offset, d_model) * 0.02)

    def forward(self, positions: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return the vectors of `positions`."""
        if self.offset == 0:
            return look_up(self.weight, positions, "positions")
        return look_up(self.weight[self.offset :], positions, "positions")


class SinusoidalPositions(nn.Module):
    """The fixed sinusoids of Vaswani et al. (2017), 3.5, from a table of `max_seq_len` rows."""

    def __init__(self, max_seq_len: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal(max_seq_len, d_model), persistent=False)

    def forward(self, positions: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return the vectors of `positions`."""
        return look_up(self.table, positions, "positions")


class BlockPositions(nn.Module):
    """Two trained vectors per token, added: its place in the text, its place in its block (GLM).

    The 2-D positions of Du et al. (2022), 2.1; `block_positions` makes the two numbers.
    """

    def __init__(self, max_seq_len: int, max_block_len: int, d_model: int) -> None:
        super().__init__()
        self.text = LearnedPositions(max_seq_len, d_model)
        self.block = LearnedPositions(max_block_len + 1, d_model)

    def forward(self, positions: Int[Tensor, "b 2 t"]) -> Float[Tensor, "b t d"]:
        """Return the sum of both vectors; `positions[:, 0]` is the text's, `[:, 1]` the block's."""
        return self.text(positions[:, 0]) + self.block(positions[:, 1])


def block_positions(n_text: int, blocks: Sequence[tuple[int, int]]) -> Int[Tensor, "2 t"]:
    """Positions of a text with holes and of the blocks that fill them (Du et al. 2022, 2.1).

    `n_text` tokens, holes included, stand at 0 … n_text − 1 with block position 0. After them come
    the blocks, `(place of the hole, length)` each, in the order in which they are to be written:
    their tokens all stand at the hole, and count 1, 2, … length within the block.
    """
    check_sizes(n_text=n_text)
    first, second = list(range(n_text)), [0] * n_text
    for hole, length in blocks:
        check_sizes(length=length)
        if not 0 <= hole < n_text:
            raise ValueError(f"a hole at {hole} lies outside the text, 0 … {n_text - 1}")
        first += [hole] * length
        second += range(1, length + 1)
    return torch.tensor([first, second])
