"""Normalization of a token's vector: LayerNorm (Ba et al. 2016), RMSNorm (Zhang, Sennrich 2019)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.nn.linear import check_sizes


def layer_norm(
    x: Float[Tensor, "*n d"],
    weight: Float[Tensor, " d"] | None = None,
    bias: Float[Tensor, " d"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*n d"]:
    """(x - mean) / √(var + eps) · weight + bias over the last axis (Ba, Kiros and Hinton 2016).

    The variance divides by d, not d - 1. Half precision is computed in float32 and cast back.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centered = wide - wide.mean(dim=-1, keepdim=True)
    y = centered * torch.rsqrt(centered.square().mean(dim=-1, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(x.dtype)


def rms_norm(
    x: Float[Tensor, "*n d"], weight: Float[Tensor, " d"] | None = None, eps: float = 1e-6
) -> Float[Tensor, "*n d"]:
    """(x / √(mean(x²) + eps)) · weight over the last axis (Zhang and Sennrich 2019, eq. 4).

    No mean is removed and there is no bias. Half precision is computed in float32 and cast back.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    y = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return (y if weight is None else y * weight).to(x.dtype)


class LayerNorm(nn.Module):
    """`layer_norm` with a trained scale (ones at first) and shift (zeros at first)."""

    def __init__(
        self,
        d_model: int,
        *,
        eps: float = 1e-5,
        bias: bool = True,
        op: Callable[..., Tensor] = layer_norm,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model)
        self.eps, self.op = eps, op
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Normalize the last axis of `x`."""
        return self.op(x, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """`rms_norm` with a trained scale (ones at first).

    As `query_norm=RMSNorm(d_head), key_norm=RMSNorm(d_head)` of an attention layer it is QK-norm:
    every head's queries and keys get one length, which bounds the scores (Qwen3).
    """

    def __init__(
        self, d_model: int, *, eps: float = 1e-6, op: Callable[..., Tensor] = rms_norm
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model)
        self.eps, self.op = eps, op
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Normalize the last axis of `x`."""
        return self.op(x, self.weight, self.eps)


class OffsetRMSNorm(nn.Module):
    """`rms_norm` with the scale 1 + weight, weight zeros at first (Gemma Team 2024).

    Weight decay then pulls the scale toward 1, not toward 0.
    """

    def __init__(
        self, d_model: int, *, eps: float = 1e-6, op: Callable[..., Tensor] = rms_norm
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model)
        self.eps, self.op = eps, op
        self.weight = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Normalize the last axis of `x`."""
        return self.op(x, 1 + self.weight, self.eps)
