"""Sequence to sequence on GRUs, with additive attention (Bahdanau, Cho and Bengio 2015) or without.

Left out of the paper's model: the maxout layer before the output and its initialization. Logits are
one affine map of state, context and previous token.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.additive_attention import AdditiveAttention
from minillm.nn.linear import Linear, check_sizes
from minillm.nn.recurrent import GRUCell, Recurrent


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The numbers that define the model; `d_model` is the width of vectors and of states."""

    source_vocab: int
    target_vocab: int
    d_model: int

    def __post_init__(self) -> None:
        check_sizes(
            source_vocab=self.source_vocab, target_vocab=self.target_vocab, d_model=self.d_model
        )


class LastStates(nn.Module):
    """The encoder's two last states for every query: one vector for the whole source.

    It stands in the place of `AdditiveAttention` for the encoder-decoder of Cho et al. (2014).
    """

    def __init__(self, d_query: int, d_key: int, d_inner: int) -> None:
        super().__init__()
        self.half = d_key // 2

    def prepare(self, keys: Float[Tensor, "b s k"]) -> Float[Tensor, "b s k"]:
        """Nothing to prepare."""
        return keys

    def forward(
        self,
        query: Float[Tensor, "b q"],
        keys: Float[Tensor, "b s k"],
        prepared: Float[Tensor, "b s k"],
        mask: Bool[Tensor, "b s"] | None = None,
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b s"]]:
        """Forward half of the last real key, backward half of the first; weights are all 0."""
        weights = keys.new_zeros(keys.shape[:2])
        real = torch.ones_like(weights, dtype=torch.bool) if mask is None else mask
        rows = torch.arange(len(keys), device=keys.device)
        first = real.int().argmax(1)
        last = keys.shape[1] - 1 - real.flip(1).int().argmax(1)
        parts = keys[rows, last, : self.half], keys[rows, first, self.half :]
        return torch.cat(parts, dim=-1), weights


class Seq2Seq(nn.Module):
    """A two-way GRU reads the source; a GRU writes the target, looking at the source each step.

    `context(d_query, d_key, d_inner)` makes what looks: `AdditiveAttention` or `LastStates`.
    """

    def __init__(
        self,
        config: Seq2SeqConfig,
        *,
        context: Callable[[int, int, int], nn.Module] = AdditiveAttention,
    ) -> None:
        super().__init__()
        self.config, d = config, config.d_model
        self.source = nn.Embedding(config.source_vocab, d)
        self.target = nn.Embedding(config.target_vocab, d)
        self.encoder = Recurrent(GRUCell, d, d, bidirectional=True)
        self.bridge = Linear(2 * d, d)
        self.context = context(d, 2 * d, d)
        self.decoder = GRUCell(d + 2 * d, d)
        self.output = Linear(d + 2 * d + d, config.target_vocab)

    def encode(
        self, source: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"] | None = None
    ) -> tuple[Float[Tensor, "b s k"], Float[Tensor, "b d"]]:
        """(keys, the decoder's first state); `mask` is False at padding of the source."""
        keys, state = self.encoder(self.source(source), mask=mask)
        both = torch.cat([cell[0] for cell in state], dim=-1)
        return keys, torch.tanh(self.bridge(both))

    def step(
        self,
        token: Int[Tensor, " b"],
        state: Float[Tensor, "b d"],
        keys: Float[Tensor, "b s k"],
        prepared: Float[Tensor, "b s a"],
        mask: Bool[Tensor, "b s"] | None = None,
    ) -> tuple[Float[Tensor, "b v"], Float[Tensor, "b d"], Float[Tensor, "b s"]]:
        """Logits after `token`, the next state and the weights on the source.

        The *previous* state asks, sᵢ₋₁; its answer and the token make the next state, sᵢ.
        """
        context, weights = self.context(state, keys, prepared, mask)
        x = self.target(token)
        (state,) = self.decoder.step(self.decoder.input(torch.cat([x, context], -1)), (state,))
        return self.output(torch.cat([state, context, x], dim=-1)), state, weights

    def forward(
        self,
        source: Int[Tensor, "b s"],
        target: Int[Tensor, "b t"],
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
    ) -> tuple[Float[Tensor, "b t v"], Float[Tensor, "b t s"]]:
        """Logits after each token of `target`, given all of it (teacher forcing); the weights.

        `target` begins with the begin token; row t of the logits predicts the token after it.
        """
        keys, state = self.encode(source, source_mask)
        prepared = self.context.prepare(keys)
        logits, weights = [], []
        for t in range(target.shape[1]):
            z, state, a = self.step(target[:, t], state, keys, prepared, source_mask)
            logits.append(z)
            weights.append(a)
        return torch.stack(logits, dim=1), torch.stack(weights, dim=1)

    @torch.no_grad()
    def translate(
        self,
        source: Int[Tensor, "b s"],
        *,
        begin_id: int,
        end_id: int,
        max_new_tokens: int,
        source_mask: Bool[Tensor, "b s"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n s"]]:
        """Greedy decoding: the most probable next token, again and again; and the weights.

        A row that has ended goes on with `end_id`; decoding stops when every row has.
        """
        for name, value in (("begin_id", begin_id), ("end_id", end_id)):
            if not 0 <= value < self.config.target_vocab:
                raise ValueError(f"{name} {value} is not in 0 … {self.config.target_vocab - 1}")
        check_sizes(max_new_tokens=max_new_tokens)
        keys, state = self.encode(source, source_mask)
        prepared = self.context.prepare(keys)
        token = source.new_full((len(source),), begin_id)
        ended = torch.zeros_like(token, dtype=torch.bool)
        tokens, weights = [], []
        while len(tokens) < max_new_tokens and not ended.all():
            logits, state, a = self.step(token, state, keys, prepared, source_mask)
            token = logits.argmax(-1).masked_fill(ended, end_id)
            ended = ended | (token == end_id)
            tokens.append(token)
            weights.append(a)
        return torch.stack(tokens, dim=1), torch.stack(weights, dim=1)
