"""A recurrent language model (Mikolov et al. 2010), to be trained and called like a GPT."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.linear import Linear, check_dropout, check_sizes
from minillm.nn.recurrent import Cell, LSTMCell, Recurrent, State


@dataclass(frozen=True)
class RNNConfig:
    """The numbers that define a recurrent language model; `d_model` is the width of its states."""

    vocab_size: int
    d_model: int
    n_layers: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(vocab_size=self.vocab_size, d_model=self.d_model, n_layers=self.n_layers)
        check_dropout(self.dropout)

    @property
    def max_seq_len(self) -> int:
        """A recurrent network reads texts of any length."""
        return sys.maxsize


class RecurrentCache:
    """The state after the tokens read so far: n_layers vectors, however many tokens these were.

    It stands where a GPT has its keys and values: `model(new, cache=cache)` goes on from it.
    """

    def __init__(self) -> None:
        self.state: State | None = None
        self.length = 0

    def update(self, state: State, n_tokens: int) -> None:
        """Replace the state by the one after `n_tokens` more."""
        self.state, self.length = state, self.length + n_tokens

    @property
    def n_bytes(self) -> int:
        """Memory of the state."""
        return sum(part.nbytes for cell in self.state or () for part in cell)


class RNNLM(nn.Module):
    """Token vectors, `n_layers` of `cell`, and the token table again as output layer.

    Tying the output to the table was first proposed for such models (Press and Wolf 2017).
    """

    def __init__(self, config: RNNConfig, *, cell: Callable[[int, int], Cell] = LSTMCell) -> None:
        super().__init__()
        c = config
        self.config = config
        self.tokens = nn.Embedding(c.vocab_size, c.d_model)
        nn.init.normal_(self.tokens.weight, std=c.d_model**-0.5)
        self.dropout = nn.Dropout(c.dropout)
        self.recurrent = Recurrent(cell, c.d_model, c.d_model, c.n_layers, dropout=c.dropout)
        self.output = Linear(c.d_model, c.vocab_size)
        nn.init.zeros_(self.output.bias)
        self.output.weight = self.tokens.weight

    def new_cache(self, batch: int = 1, max_seq_len: int | None = None) -> RecurrentCache:
        """An empty cache for `generation`; neither argument matters to a state of fixed size."""
        return RecurrentCache()

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        positions: Int[Tensor, "b t"] | None = None,
        attention_mask: Bool[Tensor, "b s"] | None = None,
        cache: RecurrentCache | None = None,
        last_only: bool = False,
        starts: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the next token after each of `tokens` (only after the last with `last_only`).

        `attention_mask` is False at padding, on either side, and covers the tokens in the cache
        too. `starts` is True where a new document begins and the state is set to 0. `positions`
        are taken for the sake of `generation` and not used: a recurrent network counts by reading.
        """
        self._check(tokens, attention_mask, cache)
        t = tokens.shape[1]
        mask = None if attention_mask is None else attention_mask[:, -t:]
        x = self.dropout(self.tokens(tokens))
        before = None if cache is None else cache.state
        x, state = self.recurrent(x, before, mask=mask, starts=starts)
        logits = self.output(self.dropout(x[:, -1:] if last_only else x))
        if cache is not None:  # last: a pass that fails leaves the cache as it was
            cache.update(state, t)
        return logits

    def _check(
        self, tokens: Tensor, attention_mask: Tensor | None, cache: RecurrentCache | None
    ) -> None:
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.numel() == 0:
            got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise ValueError(f"tokens must have shape (batch ≥ 1, length ≥ 1), got {got}")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(
                f"token id {low if low < 0 else high} is outside the vocabulary of "
                f"{self.config.vocab_size}: are tokenizer and model a pair?"
            )
        if cache is not None and not isinstance(cache, RecurrentCache):
            raise ValueError(
                f"cache is a {type(cache).__name__}: a recurrent model keeps its state in a "
                "RecurrentCache, made by model.new_cache()"
            )
        end = tokens.shape[1] + (0 if cache is None else cache.length)
        if attention_mask is not None and attention_mask.shape != (tokens.shape[0], end):
            raise ValueError(
                f"attention_mask must be {(tokens.shape[0], end)} (cached and new tokens), got "
                f"{tuple(attention_mask.shape)}"
            )
