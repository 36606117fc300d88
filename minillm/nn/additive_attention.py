"""Additive attention (Bahdanau, Cho and Bengio 2015): a small network compares query and key."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minillm.nn.linear import Linear


class AdditiveAttention(nn.Module):
    """aₛ = softmaxₛ(vᵀ tanh(W q + U kₛ)), result Σₛ aₛ kₛ (Bahdanau et al. 2015, A.1.2).

    The keys are also the values. Keys do not change while a decoder writes, so `prepare` computes
    U k once for all its steps.
    """

    def __init__(self, d_query: int, d_key: int, d_inner: int) -> None:
        super().__init__()
        self.query = Linear(d_query, d_inner)
        self.key = Linear(d_key, d_inner, bias=False)
        self.score = Linear(d_inner, 1, bias=False)

    def prepare(self, keys: Float[Tensor, "b s k"]) -> Float[Tensor, "b s a"]:
        """U k for every key."""
        return self.key(keys)

    def forward(
        self,
        query: Float[Tensor, "b q"],
        keys: Float[Tensor, "b s k"],
        prepared: Float[Tensor, "b s a"],
        mask: Bool[Tensor, "b s"] | None = None,
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b s"]]:
        """The weighted mean of the keys, and the weights; keys where `mask` is False get 0."""
        scores = self.score(torch.tanh(self.query(query)[:, None] + prepared))[..., 0]
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        weights = weights if mask is None else weights.masked_fill(~mask, 0.0)
        return (weights[:, None] @ keys)[:, 0], weights
