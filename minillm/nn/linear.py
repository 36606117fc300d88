"""The affine map that every layer is made of, as an operation that a faster one can replace."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def linear(
    x: Float[Tensor, "*n d"],
    weight: Float[Tensor, "f d"],
    bias: Float[Tensor, " f"] | None = None,
) -> Float[Tensor, "*n f"]:
    """x Wᵀ + b over the last axis."""
    return F.linear(x, weight, bias)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless every size is a whole number, at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, got {size!r}")


def check_heads(d_model: int, n_heads: int) -> None:
    """Raise ValueError unless the heads divide the width evenly."""
    if d_model % n_heads:
        raise ValueError(
            f"d_model {d_model} is not divisible by n_heads {n_heads}; "
            f"try d_model={d_model // n_heads * n_heads or n_heads}"
        )


def check_dropout(dropout: float) -> None:
    """Raise ValueError unless `dropout` is a probability below 1."""
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:  # NaN fails it too
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")


class Linear(nn.Linear):
    """PyTorch's layer with the operation handed in: any function with the signature of `linear`."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        bias: bool = True,
        op: Callable[..., Tensor] = linear,
    ) -> None:
        check_sizes(d_in=d_in, d_out=d_out)
        super().__init__(d_in, d_out, bias=bias)
        self.op = op

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n f"]:
        """Map the last axis of `x`."""
        return self.op(x, self.weight, self.bias)
