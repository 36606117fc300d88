"""Filling the holes of a text with a GLM: span after span, each token seeing what stands around it.

`Blank` makes of a GLM, a text and one of its holes a language model over what fills it, which
`generate`, `stream` and every sampler take as they take a GPT.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.data.blank_infilling import BlankTokens
from minillm.generation.cache import ContiguousCache
from minillm.generation.loop import generate
from minillm.nn.attention import LayerCache


class BlankCache:
    """A cache that has read the text already, and counts the tokens of the span only."""

    def __init__(self, inner: ContiguousCache, n_read: int) -> None:
        self.inner, self.n_read = inner, n_read

    @property
    def length(self) -> int:
        """Tokens of the span that are stored."""
        return self.inner.length - self.n_read

    def __getitem__(self, layer: int) -> LayerCache:
        return self.inner[layer]

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens of the span."""
        self.inner.rollback(self.n_read + length)


class Blank(nn.Module):
    """p(sⱼ | x, earlier spans, s₁ … sⱼ₋₁) for the span s that fills `hole` (Du et al. 2022, 2.1).

    `read` is part A and the spans written before, `positions` (2, n) theirs, `context` the length
    of part A. The model must add two positions to its tokens, as `models.glm.glm` does.
    """

    def __init__(
        self,
        model: nn.Module,
        read: Int[Tensor, " n"],
        positions: Int[Tensor, "2 n"],
        *,
        context: int,
        hole: int,
    ) -> None:
        super().__init__()
        self.model, self.config, self.training = model, model.config, model.training
        self.read, self.positions, self.context, self.hole = read, positions, context, hole

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        cache: BlankCache | None = None,
        last_only: bool = False,
        positions: None = None,
        attention_mask: None = None,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the next token of the span; its first token is the start token."""
        start, (batch, t) = 0 if cache is None else cache.length, tokens.shape
        inner = torch.arange(start + 1, start + t + 1, device=tokens.device)
        own = torch.stack([torch.full_like(inner, self.hole), inner])
        if cache is not None:
            return self.model(tokens, positions=own[None], cache=cache.inner, last_only=last_only)
        tokens = torch.cat([self.read.expand(batch, -1), tokens], dim=1)
        own = torch.cat([self.positions, own], dim=1)
        logits = self.model(
            tokens, context=self._contexts(batch), positions=own[None], last_only=last_only
        )
        return logits if last_only else logits[:, -t:]

    def new_cache(self, batch: int, length: int) -> BlankCache:
        """A cache with room for `length` tokens of the span; the text is read into it here."""
        cache = ContiguousCache.for_model(self.model, batch, len(self.read) + length)
        with torch.inference_mode():
            self.model(
                self.read.expand(batch, -1),
                context=self._contexts(batch),
                positions=self.positions[None],
                cache=cache,
                last_only=True,
            )
        return BlankCache(cache, len(self.read))

    def _contexts(self, batch: int) -> Tensor:
        return torch.full((batch,), self.context, device=self.read.device)


def fill_blanks(
    model: nn.Module,
    text: Int[Tensor, " n"] | Sequence[int],
    special: BlankTokens,
    *,
    max_new_tokens: int,
    order: Sequence[int] | None = None,
    **options: Any,
) -> list[list[int]]:
    """What the model writes into each `special.mask` of `text`, the holes counted from the left.

    Each span sees the text and the spans written before it, in `order` (from the left when left
    out). `options` are those of `generate`: sampler, generator, cache.
    """
    device = next(model.parameters()).device
    read = torch.as_tensor(text, device=device)
    context = len(read)
    holes = (read == special.mask).nonzero()[:, 0].tolist()
    if not holes:
        raise ValueError(f"the text has no token {special.mask}, the mask: put one where a hole is")
    order = range(len(holes)) if order is None else order
    if sorted(order) != list(range(len(holes))):
        raise ValueError(f"order {list(order)} must name each of the {len(holes)} holes once")
    place = torch.arange(context, device=device)
    positions, spans = torch.stack([place, place * 0]), [[] for _ in holes]
    for i in order:
        blank = Blank(model, read, positions, context=context, hole=holes[i])
        start = torch.tensor([[special.start]], device=device)
        ids = generate(blank, start, max_new_tokens=max_new_tokens, eos_id=special.end, **options)[
            0
        ]
        ids = ids[:-1] if ids[-1] == special.end else ids
        spans[i] = ids[1:].tolist()
        inner = torch.arange(1, len(ids) + 1, device=device)
        read = torch.cat([read, ids])
        own = torch.stack([torch.full_like(inner, holes[i]), inner])
        positions = torch.cat([positions, own], dim=1)
    return spans
