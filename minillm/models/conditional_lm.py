"""The encoder-decoder that the 2017 Transformer, T5 and BART share: parts in, logits out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.hub_format import HubFormat
from minillm.nn.attention import Cache, padding_mask
from minillm.nn.linear import Linear, check_dropout
from minillm.nn.ops import Ops
from minillm.nn.positions import look_up
from minillm.nn.relative import distances


@runtime_checkable
class ConditionalConfig(Protocol):
    """What a config must tell about any encoder-decoder; families add their own fields.

    `n_layers` each in encoder and decoder.
    """

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int


@dataclass(frozen=True)
class Stack:
    """The parts of one side, the encoder or the decoder.

    `positions` are added to the tokens' vectors (none in T5), `embedding_norm` comes after them
    (BART). `relative_bias` is made once and added to the scores of every self-attention (T5).
    """

    blocks: Iterable[nn.Module]
    positions: nn.Module | None = None
    embedding_norm: nn.Module | None = None
    relative_bias: nn.Module | None = None
    final_norm: nn.Module | None = None


@dataclass(frozen=True)
class Memory:
    """What the decoder may look at: keys and values of the source for each layer, and its mask."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Bool[Tensor, "b s"] | None = None

    def repeat(self, n: int) -> "Memory":
        """Every row n times, side by side, for n hypotheses of the same source."""
        layers = tuple(
            (k.repeat_interleave(n, dim=0), v.repeat_interleave(n, dim=0)) for k, v in self.layers
        )
        return Memory(layers, None if self.mask is None else self.mask.repeat_interleave(n, dim=0))


class ConditionalLM(nn.Module):
    """p(y | x) = Πᵢ p(yᵢ | y₁ … yᵢ₋₁, encoder(x)), logits = output_scale · decoder(y, x) Wᵀ + b.

    A family is what it hands in: two `Stack`s of parts, whose blocks are called as
    block(x, mask=, bias=) and block(x, memory, memory_mask=, causal=True, cache=, …). One table of
    token vectors, times `embedding_scale`, serves both sides; W is that table where `tied`. With
    `output_bias` b is a buffer, as checkpoints of Marian and BART have it. `ops` are the kernels
    used, `Ops()` when left out.
    """

    def __init__(
        self,
        config: ConditionalConfig,
        encoder: Stack,
        decoder: Stack,
        *,
        tied: bool = True,
        output_bias: bool = False,
        embedding_scale: float | int = 1.0,
        output_scale: float | int = 1.0,
        dropout: float = 0.0,
        hub_format: HubFormat | None = None,
        ops: Ops | None = None,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        self.config, self.hub_format = config, hub_format
        self.linear = (ops or Ops()).linear
        self.embedding_scale, self.output_scale = embedding_scale, output_scale
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.positions = encoder.positions
        shared = decoder.positions is encoder.positions
        self.decoder_positions = None if shared else decoder.positions
        self.encoder_embedding_norm = encoder.embedding_norm
        self.decoder_embedding_norm = decoder.embedding_norm
        self.encoder_bias, self.decoder_bias = encoder.relative_bias, decoder.relative_bias
        self.encoder, self.decoder = nn.ModuleList(encoder.blocks), nn.ModuleList(decoder.blocks)
        for name, blocks in (("encoder", self.encoder), ("decoder", self.decoder)):
            if len(blocks) != config.n_layers:
                raise ValueError(
                    f"{len(blocks)} {name} blocks for n_layers={config.n_layers}: give as many"
                )
        self.encoder_norm = encoder.final_norm or nn.Identity()
        self.decoder_norm = decoder.final_norm or nn.Identity()
        width = (config.d_model, config.vocab_size)
        self.output = None if tied else Linear(*width, bias=False, op=self.linear)
        bias = torch.zeros(1, config.vocab_size) if output_bias else None
        self.register_buffer("output_bias", bias)

    def forward(
        self,
        source: Int[Tensor, "b s"],
        target: Int[Tensor, "b t"],
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
        target_mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Logits of the next token after each of `target`, with all of `source` in view.

        The masks are False at padding. Targets padded on the right need none: no earlier token
        looks there, and the loss ignores those places.
        """
        encoded = self.encode(source, source_mask=source_mask)
        memory = self.remember(encoded, source_mask=source_mask)
        return self.decode(target, memory, target_mask=target_mask)

    def encode(
        self, source: Int[Tensor, "b s"], *, source_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s d"]:
        """One vector per source token, each having looked at all others."""
        self._check(source, "source_mask", source_mask)
        options = {"mask": None if source_mask is None else padding_mask(source_mask)}
        if self.encoder_bias is not None:
            options["bias"] = self.encoder_bias(distances(source.shape[1], device=source.device))
        x = self._embed(source, 0, self.positions, self.encoder_embedding_norm)
        for block in self.encoder:
            x = block(x, **options)
        return self.encoder_norm(x)

    def remember(
        self, encoded: Float[Tensor, "b s d"], *, source_mask: Bool[Tensor, "b s"] | None = None
    ) -> Memory:
        """Keys and values for every cross-attention: made once for a source, not per token."""
        layers = tuple(block.cross_attention.remember(encoded) for block in self.decoder)
        return Memory(layers, source_mask)

    def decode(
        self,
        target: Int[Tensor, "b t"],
        memory: Memory,
        *,
        target_mask: Bool[Tensor, "b s"] | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b n v"]:
        """Logits after each of `target` (only after the last with `last_only`).

        With a `cache`, which holds the keys and values of the decoder's earlier tokens, `target`
        are the tokens that follow them; `target_mask` then covers those too.
        """
        start = 0 if cache is None else cache.length
        self._check(target, "target_mask", target_mask, start)
        options = {"mask": None if target_mask is None else padding_mask(target_mask)}
        options["memory_mask"] = None if memory.mask is None else padding_mask(memory.mask)
        if self.decoder_bias is not None:
            t = target.shape[1]
            options["bias"] = self.decoder_bias(distances(t, start + t, device=target.device))
        x = self._embed(target, start, self.decoder_positions, self.decoder_embedding_norm)
        for i, (block, pair) in enumerate(zip(self.decoder, memory.layers, strict=True)):
            layer = None if cache is None else cache[i]
            x = block(x, pair, causal=True, cache=layer, **options)
        return self.logits(self.decoder_norm(x[:, -1:] if last_only else x))

    def logits(self, hidden: Float[Tensor, "b n d"]) -> Float[Tensor, "b n v"]:
        """Scores of all tokens for each vector of `hidden`."""
        x = hidden if self.output_scale == 1 else hidden * self.output_scale
        if self.output is not None:
            return self.output(x)
        bias = None if self.output_bias is None else self.output_bias[0]
        return self.linear(x, self.tokens.weight, bias)

    def _embed(
        self,
        tokens: Tensor,
        start: int,
        positions: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> Tensor:
        """Scale · token vector + position vector, normalized where the family does; dropout."""
        x = look_up(self.tokens.weight, tokens, "token ids")
        x = x if self.embedding_scale == 1 else x * self.embedding_scale
        positions = self.positions if positions is None else positions
        if positions is not None:
            where = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
            x = x + positions(where)
        return self.dropout(x if norm is None else norm(x))

    def _check(self, tokens: Tensor, name: str, mask: Tensor | None, start: int = 0) -> None:
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"token ids must have shape (batch ≥ 1, length ≥ 1), got {tuple(tokens.shape)}; "
                "write `tokens[None]` for a single sequence"
            )
        if (end := start + tokens.shape[1]) > self.config.max_seq_len:
            raise ValueError(
                f"{end} positions exceed max_seq_len {self.config.max_seq_len}; "
                "cut the input, or build the model with a longer max_seq_len"
            )
        if mask is not None and mask.shape != (len(tokens), end):
            raise ValueError(f"{name} {tuple(mask.shape)} must match {(len(tokens), end)} tokens")


class Conditioned(nn.Module):
    """The decoder with its source fixed: a language model p(yᵢ | y₁ … yᵢ₋₁) like any other.

    `generate`, `stream` and `beam_search` take it as they take a GPT.
    """

    def __init__(self, model: ConditionalLM, memory: Memory) -> None:
        super().__init__()
        self.model, self.memory, self.config = model, memory, model.config
        self.training = model.training

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        cache: Cache | None = None,
        last_only: bool = False,
        positions: None = None,
        attention_mask: None = None,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the next token; targets all begin at position 0, so there is no padding."""
        return self.model.decode(tokens, self.memory, cache=cache, last_only=last_only)

    def repeat(self, n: int) -> "Conditioned":
        """The same with every row n times, for n hypotheses of each source."""
        return Conditioned(self.model, self.memory.repeat(n))
