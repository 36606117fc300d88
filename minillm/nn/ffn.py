"""The position-wise feed-forward layer, plain and gated, and its activations."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.nn.linear import Linear, check_dropout, check_sizes, linear


def relu(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """max(x, 0)."""
    return x.clamp(min=0)


def gelu_exact(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """½ x (1 + erf(x/√2)) = x Φ(x), Φ standard normal (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), the form GPT-1 and GPT-2 use (same paper)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """½ x (1 + tanh(x/2)) = x σ(x), also called swish (Elfwing et al. 2018)."""
    return x * torch.sigmoid(x)


def swiglu(gate: Float[Tensor, "*n"], up: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """silu(gate) ⊙ up (Shazeer 2020, eq. 6; LLaMA)."""
    return silu(gate) * up


def geglu(gate: Float[Tensor, "*n"], up: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """gelu(gate) ⊙ up with the exact GELU (Shazeer 2020, eq. 6)."""
    return gelu_exact(gate) * up


def geglu_tanh(gate: Float[Tensor, "*n"], up: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """gelu(gate) ⊙ up with the tanh form, as in T5 1.1 and Gemma."""
    return gelu_tanh(gate) * up


def gated_width(d_model: int, *, multiple_of: int = 256, factor: float | int = 1) -> int:
    """factor · ⌊8/3 · d_model⌋, rounded up to `multiple_of`: LLaMA's d_ff (Touvron et al. 2023).

    Three matrices of 8/3 d have as many weights as two of 4 d. LLaMA 1 rounds to 256 (4096 →
    11008); Llama 2 70B has factor 1.3 and 4096, Llama 3 8B factor 1.3 and 1024 (3.5 d in both).
    """
    check_sizes(d_model=d_model, multiple_of=multiple_of)
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be a number above 0, such as 1.3, got {factor}")
    return math.ceil(int(factor * int(8 * d_model / 3)) / multiple_of) * multiple_of


class FeedForward(nn.Module):
    """W₂ activation(W₁ x + b₁) + b₂, each position by itself (Vaswani et al. 2017, eq. 2).

    `dropout` acts after the activation while training.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        activation: Callable[[Tensor], Tensor] = gelu_tanh,
        bias: bool = True,
        dropout: float = 0.0,
        linear: Callable[..., Tensor] = linear,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, d_ff=d_ff)
        check_dropout(dropout)
        self.activation = activation
        self.up = Linear(d_model, d_ff, bias=bias, op=linear)
        self.down = Linear(d_ff, d_model, bias=bias, op=linear)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Map each vector up to d_ff, through the activation, and back down."""
        return self.down(self.dropout(self.activation(self.up(x))))


class GatedFeedForward(nn.Module):
    """W₂ (σ(W₁ x) ⊙ W₃ x), σ an activation: one projection gates another (Shazeer 2020, eq. 6).

    `gated(gate, up)` is σ(gate) ⊙ up: `swiglu`, `geglu`, `geglu_tanh`. `dropout` acts on the
    product while training. See `gated_width` for a d_ff that costs what a plain layer of 4 d does.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        gated: Callable[[Tensor, Tensor], Tensor] = swiglu,
        bias: bool = False,
        dropout: float = 0.0,
        linear: Callable[..., Tensor] = linear,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, d_ff=d_ff)
        check_dropout(dropout)
        self.gated = gated
        self.gate = Linear(d_model, d_ff, bias=bias, op=linear)
        self.up = Linear(d_model, d_ff, bias=bias, op=linear)
        self.down = Linear(d_ff, d_model, bias=bias, op=linear)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Map each vector up to d_ff twice, multiply, and map back down."""
        return self.down(self.dropout(self.gated(self.gate(x), self.up(x))))
