"""Recurrent networks: the plain RNN (Elman 1990), LSTM and GRU, over batches with padding.

A cell reads one token and updates a state; a `RecurrentLayer` walks it along the sequence, forwards
or backwards; a `Recurrent` network stacks layers. Everything equals `torch.nn.RNN`, `LSTM` and
`GRU`, gradients included, and `load_torch` takes their weights.

Axes: `b` batch, `t` steps, `d` what a step reads, `n` the width of the state, `k` gates × width.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minillm.nn.linear import Linear, check_dropout, check_sizes

CellState = tuple[Tensor, ...]
"""What one cell remembers: (h,), or (h, c) in an LSTM; each "b n"."""

State = tuple[CellState, ...]
"""One `CellState` for each layer, and in a two-way network for each direction of each layer."""


class Cell(nn.Module):
    """What the three cells share: one product with the input and one with the state, all gates.

    `input` does not depend on the state, so it is computed for a whole sequence at once; `step`
    does the rest, one token at a time. Weights start from U(−1/√n, 1/√n), as PyTorch's do.
    """

    n_gates = 1
    n_states = 1

    def __init__(self, d_in: int, d_state: int) -> None:
        super().__init__()
        check_sizes(d_in=d_in, d_state=d_state)
        self.d_in, self.d_state = d_in, d_state
        self.input = Linear(d_in, self.n_gates * d_state)
        self.recurrent = Linear(d_state, self.n_gates * d_state)
        bound = 1 / math.sqrt(d_state)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def first_state(self, x: Float[Tensor, "b ..."]) -> CellState:
        """Zeros, with the batch, type and device of `x`."""
        return tuple(x.new_zeros(x.shape[0], self.d_state) for _ in range(self.n_states))

    def step(self, z: Float[Tensor, "b k"], state: CellState) -> CellState:
        """The next state from `z` = input(x) and the state so far; its first part is the output."""
        raise NotImplementedError("a cell defines step()")


class RNNCell(Cell):
    """h′ = tanh(W x + U h + b) (Elman 1990)."""

    def step(self, z: Float[Tensor, "b k"], state: CellState) -> CellState:
        """See the class."""
        return (torch.tanh(z + self.recurrent(state[0])),)


class LSTMCell(Cell):
    """c′ = f ⊙ c + i ⊙ g, h′ = o ⊙ tanh(c′) (Hochreiter and Schmidhuber 1997; f: Gers et al. 2000).

    i, f, o = σ(W x + U h + b) and g = tanh(W x + U h + b), each with its own rows, in the order i,
    f, g, o. `forget_bias` is where f's bias starts: at 1 a new cell keeps σ(1) = 73% a step.
    """

    n_gates = 4
    n_states = 2

    def __init__(self, d_in: int, d_state: int, *, forget_bias: float | int = 1.0) -> None:
        super().__init__(d_in, d_state)
        with torch.no_grad():
            self.input.bias[d_state : 2 * d_state] = forget_bias
            self.recurrent.bias[d_state : 2 * d_state] = 0.0

    def step(self, z: Float[Tensor, "b k"], state: CellState) -> CellState:
        """See the class."""
        h, c = state
        i, f, g, o = (z + self.recurrent(h)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(Cell):
    """h′ = (1 − u) ⊙ n + u ⊙ h (Cho et al. 2014), reset gate after the product as in cuDNN.

    r, u = σ(W x + U h + b), n = tanh(W x + b + r ⊙ (U h + b′)), in the order r, u, n. The paper
    writes U (r ⊙ h) instead.
    """

    n_gates = 3

    def step(self, z: Float[Tensor, "b k"], state: CellState) -> CellState:
        """See the class."""
        (h,) = state
        z_r, z_u, z_n = z.chunk(3, dim=-1)
        r, u, n = self.recurrent(h).chunk(3, dim=-1)
        r, u = (z_r + r).sigmoid(), (z_u + u).sigmoid()
        n = torch.tanh(z_n + r * n)
        return ((1 - u) * n + u * h,)


class RecurrentLayer(nn.Module):
    """One cell walked along the sequence; with `backwards` from its last token to its first."""

    def __init__(self, cell: Cell, *, backwards: bool = False) -> None:
        super().__init__()
        self.cell, self.backwards = cell, backwards

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        state: CellState | None = None,
        *,
        mask: Bool[Tensor, "b t"] | None = None,
        starts: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t n"], CellState]:
        """Outputs at every token, and the state after the last one read.

        Where `mask` is False (padding, on either side) the state stays as it is and the output is
        0. Where `starts` is True a new document begins: nothing is carried across that border.
        """
        z = self.cell.input(x)
        state = self.cell.first_state(x) if state is None else state
        outputs = [z] * x.shape[1]
        for t in reversed(range(x.shape[1])) if self.backwards else range(x.shape[1]):
            state = self._forget(state, starts, t)
            new = self.cell.step(z[:, t], state)
            if mask is None:
                state, outputs[t] = new, new[0]
                continue
            real = mask[:, t, None]
            state = tuple(torch.where(real, a, b) for a, b in zip(new, state, strict=True))
            outputs[t] = torch.where(real, new[0], 0.0)
        return torch.stack(outputs, dim=1), state

    def _forget(self, state: CellState, starts: Tensor | None, t: int) -> CellState:
        """Zeros where the token about to be read and the one read before it are of two texts."""
        border = t + 1 if self.backwards else t
        if starts is None or border == starts.shape[1]:
            return state
        return tuple(torch.where(starts[:, border, None], 0.0, part) for part in state)


class Recurrent(nn.Module):
    """`n_layers` layers of `cell`, each reading the outputs of the one below.

    `cell(d_in, d_state)` makes a cell: `RNNCell`, `LSTMCell`, `GRUCell`. With `bidirectional` each
    layer has two directions, and their outputs side by side (2n wide) are what the next one reads.
    `dropout` acts between layers while training.
    """

    def __init__(
        self,
        cell: Callable[[int, int], Cell],
        d_in: int,
        d_state: int,
        n_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(d_in=d_in, d_state=d_state, n_layers=n_layers)
        check_dropout(dropout)
        self.d_state, self.n_layers, self.bidirectional = d_state, n_layers, bidirectional
        ways = (False, True) if bidirectional else (False,)
        self.layers = nn.ModuleList(
            RecurrentLayer(cell(d_in if i == 0 else len(ways) * d_state, d_state), backwards=way)
            for i in range(n_layers)
            for way in ways
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        state: State | None = None,
        *,
        mask: Bool[Tensor, "b t"] | None = None,
        starts: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t n"], State]:
        """Outputs of the last layer, and all states after the last token read.

        `mask` and `starts` are those of `RecurrentLayer.forward`. Hand the state back in to go on
        where the sequence stopped.
        """
        self._check(x, state, mask, starts)
        ways, after = 2 if self.bidirectional else 1, []
        for i in range(self.n_layers):
            x = x if i == 0 else self.dropout(x)
            read = []
            for j in range(ways * i, ways * (i + 1)):
                before = None if state is None else state[j]
                y, new = self.layers[j](x, before, mask=mask, starts=starts)
                read.append(y)
                after.append(new)
            x = torch.cat(read, dim=-1)
        return x, tuple(after)

    def load_torch(self, weights: dict[str, Tensor]) -> None:
        """Copy the state dict of a `torch.nn.RNN`, `LSTM` or `GRU` of the same shape."""
        taken = set()
        for j, layer in enumerate(self.layers):
            i, way = divmod(j, 2) if self.bidirectional else (j, 0)
            for ours, theirs in (("input", "ih"), ("recurrent", "hh")):
                for part in ("weight", "bias"):
                    name = f"{part}_{theirs}_l{i}" + "_reverse" * way
                    if name not in weights:
                        raise ValueError(f"{name} is missing: same layers, directions and biases?")
                    taken.add(name)
                    with torch.no_grad():
                        _copy(getattr(getattr(layer.cell, ours), part), weights[name], name)
        if left := sorted(set(weights) - taken):
            raise ValueError(f"{left} have no place here: same layers and directions?")

    def _check(
        self,
        x: Tensor,
        state: State | None,
        mask: Tensor | None,
        starts: Tensor | None,
    ) -> None:
        d_in = self.layers[0].cell.d_in
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != d_in:
            raise ValueError(f"x must be (batch, length ≥ 1, {d_in}), got {tuple(x.shape)}")
        for name, flags in (("mask", mask), ("starts", starts)):
            if flags is not None and (flags.dtype != torch.bool or flags.shape != x.shape[:2]):
                raise ValueError(
                    f"{name} must be boolean {tuple(x.shape[:2])}, got {flags.dtype} "
                    f"{tuple(flags.shape)}; write `{name}.bool()` for zeros and ones"
                )
        if state is None:
            return
        shapes = [tuple(part.shape) for cell in state for part in cell]
        n_states = self.layers[0].cell.n_states
        if shapes != [(x.shape[0], self.d_state)] * len(self.layers) * n_states:
            raise ValueError(
                f"the state has parts {shapes}; this network needs {len(self.layers)} × {n_states} "
                f"of {(x.shape[0], self.d_state)}: give the one it returned, or None to begin"
            )


def detached(state: State) -> State:
    """The same numbers cut off from the graph: truncated backpropagation through time."""
    return tuple(tuple(part.detach() for part in cell) for cell in state)


def lengths_mask(lengths: Sequence[int], longest: int | None = None) -> Bool[Tensor, "b t"]:
    """True at the first `lengths[i]` places of row i: padding on the right."""
    sizes = torch.as_tensor(lengths)
    longest = int(sizes.max()) if longest is None else longest
    if int(sizes.min()) < 0 or int(sizes.max()) > longest:
        raise ValueError(f"lengths {list(lengths)} must lie between 0 and {longest}")
    return torch.arange(longest) < sizes[:, None]


def _copy(parameter: Tensor, value: Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        raise ValueError(
            f"{name} is {tuple(value.shape)}, here {tuple(parameter.shape)}: the same sizes?"
        )
    parameter.copy_(value)
