"""The position-wise feed-forward layer and its activations."""

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
