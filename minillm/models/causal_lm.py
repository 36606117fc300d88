"""The decoder-only language model that GPT, LLaMA and their cousins share: parts in, logits out."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.hub_format import HubFormat
from minillm.nn.attention import Cache, padding_mask
from minillm.nn.linear import Linear, check_dropout
from minillm.nn.ops import Ops
from minillm.nn.positions import look_up


@runtime_checkable
class CausalConfig(Protocol):
    """What a config must tell about any decoder-only model; families add their own fields."""

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int


class CausalLM(nn.Module):
    """logits = norm(blocks(E[tokens] · scale + P[positions])) Wᵀ, no token seeing a later one.

    A family is what it hands in: `blocks`, each called as block(x, mask=, causal=True, positions=,
    cache=), the `final_norm` (none in GPT-1), and `positions`, a module whose vectors are added to
    the tokens' (none with RoPE or ALiBi, which act inside the blocks). With `tied` W is the token
    table E, otherwise a matrix of its own. Gemma multiplies the tokens' vectors by an
    `embedding_scale`, BLOOM has an `embedding_norm` behind them. `hub_format` says how checkpoints
    name the parts; `ops` are the kernels used, `Ops()` when left out.
    """

    def __init__(
        self,
        config: CausalConfig,
        blocks: Iterable[nn.Module],
        *,
        final_norm: nn.Module | None = None,
        positions: nn.Module | None = None,
        tied: bool = True,
        embedding_scale: float | int = 1.0,
        embedding_norm: nn.Module | None = None,
        dropout: float = 0.0,
        hub_format: HubFormat | None = None,
        ops: Ops | None = None,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        self.config, self.hub_format = config, hub_format
        self.linear = (ops or Ops()).linear
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = positions
        self.embedding_scale, self.embedding_norm = embedding_scale, embedding_norm
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        if len(self.blocks) != config.n_layers:
            raise ValueError(
                f"{len(self.blocks)} blocks for n_layers={config.n_layers}: give as many"
            )
        self.final_norm = nn.Identity() if final_norm is None else final_norm
        width = (config.d_model, config.vocab_size)
        self.output = None if tied else Linear(*width, bias=False, op=self.linear)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        positions: Int[Tensor, "b t"] | None = None,
        attention_mask: Bool[Tensor, "b s"] | Bool[Tensor, "b t s"] | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the next token after each of `tokens` (only after the last with `last_only`).

        `attention_mask` is False at padding and covers the cached positions too; with a row for
        each query it hides pairs (documents packed side by side). Padding on the
        left needs `positions` as well (by default cache.length + 0, 1, 2, …). A pass that fails
        or is interrupted leaves the cache as it was.
        """
        start = 0 if cache is None else cache.length
        self._check(tokens, positions, attention_mask, start)
        if cache is not None:
            self._check_cache(cache)
        try:
            x = self._stream(tokens, positions, attention_mask, cache, start)
            return self.logits(self.final_norm(x[:, -1:] if last_only else x))
        except BaseException:  # Ctrl-C too: some layers hold the new keys, others do not
            if hasattr(cache, "rollback"):
                cache.rollback(start)
            raise

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        positions: Int[Tensor, "b t"] | None = None,
        attention_mask: Bool[Tensor, "b s"] | Bool[Tensor, "b t s"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The stream after the final norm: what `logits` reads, or a head for another task."""
        self._check(tokens, positions, attention_mask, 0)
        return self.final_norm(self._stream(tokens, positions, attention_mask, None, 0))

    def logits(self, hidden: Float[Tensor, "b n d"]) -> Float[Tensor, "b n v"]:
        """Scores of all tokens for each vector of `hidden`."""
        if self.output is None:
            return self.linear(hidden, self.tokens.weight)
        return self.output(hidden)

    def _stream(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        attention_mask: Tensor | None,
        cache: Cache | None,
        start: int,
    ) -> Tensor:
        """The residual stream after the last block."""
        if positions is None:
            positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
        mask = attention_mask
        if mask is not None:
            mask = padding_mask(mask) if mask.ndim == 2 else mask[:, None]
        x = self._embed(tokens, positions)
        for i, block in enumerate(self.blocks):
            layer = None if cache is None else cache[i]
            x = block(x, mask=mask, causal=True, positions=positions, cache=layer)
        return x

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Vectors of the tokens, scaled and normalized where the family does, plus positions."""
        x = look_up(self.tokens.weight, tokens, "token ids")
        if self.embedding_scale != 1:
            x = x * torch.tensor(self.embedding_scale, dtype=x.dtype)  # rounded to x's type, as HF
        if self.positions is not None:
            x = x + self.positions(positions)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return self.dropout(x)

    def _check_cache(self, cache: Cache) -> None:
        n_layers = getattr(cache, "n_layers", self.config.n_layers)
        if n_layers != self.config.n_layers:
            raise ValueError(
                f"the cache has {n_layers} layers and the model {self.config.n_layers}: build it "
                "by ContiguousCache.for_model(model)"
            )

    def _check(
        self, tokens: Tensor, positions: Tensor | None, attention_mask: Tensor | None, start: int
    ) -> None:
        if not isinstance(tokens, Tensor):
            raise ValueError(f"tokens is {tokens!r:.60}; write `torch.tensor(tokens)`")
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"tokens must have shape (batch ≥ 1, length ≥ 1), got {tuple(tokens.shape)}; "
                "write `tokens[None]` for a single sequence"
            )
        end = start + tokens.shape[1]
        if positions is None and end > self.config.max_seq_len:
            raise ValueError(
                f"{end} positions exceed max_seq_len {self.config.max_seq_len}; "
                "cut the input, or build the model with a longer max_seq_len"
            )
        for name, given in (("positions", positions), ("attention_mask", attention_mask)):
            if given is not None and not isinstance(given, Tensor):
                raise ValueError(f"{name} is {given!r:.60}; write `torch.tensor({name})`")
        fitting = ((1, tokens.shape[1]), tokens.shape)
        if positions is not None and not any(positions.shape == shape for shape in fitting):
            raise ValueError(
                f"positions {tuple(positions.shape)} must match tokens {tuple(tokens.shape)}"
            )
        shapes = ((tokens.shape[0], end), (*tokens.shape, end))
        if attention_mask is not None and not any(attention_mask.shape == s for s in shapes):
            raise ValueError(
                f"attention_mask must be {shapes[0]} (cached and new positions) or, for pairs, "
                f"{shapes[1]}; got {tuple(attention_mask.shape)}"
            )
