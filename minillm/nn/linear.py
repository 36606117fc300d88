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
        super().__init__(d_in, d_out, bias=bias)
        self.op = op

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n f"]:
        """Map the last axis of `x`."""
        return self.op(x, self.weight, self.bias)
