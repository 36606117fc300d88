"""A bidirectional language model in the manner of ELMo (Peters et al. 2018), and its layer mix.

Two language models share token vectors and output layer: one reads forwards and predicts the next
token, one reads backwards and predicts the previous one. No state ever sees the token it is to
predict, which a two-way layer below another layer would. ELMo's character convolutions, projections
and residual connection are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.linear import Linear, check_sizes
from minillm.nn.losses import cross_entropy
from minillm.nn.recurrent import Cell, LSTMCell, RecurrentLayer


@dataclass(frozen=True)
class BiLMConfig:
    """The numbers that define the model; `d_model` is the width of vectors and of states."""

    vocab_size: int
    d_model: int
    n_layers: int = 2

    def __post_init__(self) -> None:
        check_sizes(vocab_size=self.vocab_size, d_model=self.d_model, n_layers=self.n_layers)


class BiLM(nn.Module):
    """log p(xₜ | x_{<t}) and log p(xₜ | x_{>t}) from two stacks of `cell` (Peters et al. 2018)."""

    def __init__(self, config: BiLMConfig, *, cell: Callable[[int, int], Cell] = LSTMCell) -> None:
        super().__init__()
        c, d = config, config.d_model
        self.config = config
        self.tokens = nn.Embedding(c.vocab_size, d)
        nn.init.normal_(self.tokens.weight, std=d**-0.5)
        self.ahead = nn.ModuleList(RecurrentLayer(cell(d, d)) for _ in range(c.n_layers))
        self.back = nn.ModuleList(
            RecurrentLayer(cell(d, d), backwards=True) for _ in range(c.n_layers)
        )
        self.output = Linear(d, c.vocab_size)
        self.output.weight = self.tokens.weight

    def layers(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "l b t e"]:
        """All n_layers + 1 representations of every token, both directions side by side.

        Layer 0 is the token vector twice. `mask` is False at padding, on either side.
        """
        ahead = back = self.tokens(tokens)
        found = [torch.cat([ahead, back], dim=-1)]
        for forth, reverse in zip(self.ahead, self.back, strict=True):
            ahead, _ = forth(ahead, mask=mask)
            back, _ = reverse(back, mask=mask)
            found.append(torch.cat([ahead, back], dim=-1))
        return torch.stack(found)

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b t v"], Float[Tensor, "b t v"]]:
        """Logits of the token *after* each one, and logits of the token *before* each one."""
        ahead, back = self.layers(tokens, mask)[-1].chunk(2, dim=-1)
        return self.output(ahead), self.output(back)


def bilm_loss(model: nn.Module, batch: tuple[Tensor, Tensor] | Tensor) -> tuple[Tensor, int]:
    """Summed cross-entropy of both directions, and how many predictions that is, for `train`.

    A batch is (tokens, mask), mask False at padding, or tokens alone.
    """
    tokens, mask = batch if isinstance(batch, tuple) else (batch, None)
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    ahead, back = model(tokens, mask)
    both = mask[:, 1:] & mask[:, :-1]
    after = tokens[:, 1:].masked_fill(~both, -100)
    before = tokens[:, :-1].masked_fill(~both, -100)
    loss = cross_entropy(ahead[:, :-1], after, reduction="sum")
    loss = loss + cross_entropy(back[:, 1:], before, reduction="sum")
    return loss, 2 * int(both.sum())


class LayerMix(nn.Module):
    """γ Σⱼ softmax(w)ⱼ layerⱼ: how a task mixes a frozen model's layers (Peters et al., eq. 1)."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        check_sizes(n_layers=n_layers)
        self.w = nn.Parameter(torch.zeros(n_layers))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, layers: Float[Tensor, "l b t e"]) -> Float[Tensor, "b t e"]:
        """The mix; at the start the plain mean."""
        if len(layers) != len(self.w):
            raise ValueError(f"{len(layers)} layers, but this mix has weights for {len(self.w)}")
        return self.gamma * torch.einsum("l,lbte->bte", self.w.softmax(0), layers)
