"""N-gram language models: add-k and interpolated Kneser-Ney.

An n-gram model of order n predicts a token from the n − 1 before it, by counting. c(h w) is how
often w followed the context h.

    add-k:       p(w | h) = (c(h w) + k) / (c(h) + k V)
    Kneser-Ney:  p(w | h) = max(c(h w) − D, 0) / c(h) + D N₁₊(h •) / c(h) · p(w | h′)

h′ is h without its first token, and N₁₊(h •) how many different tokens followed h (Chen and
Goodman 1999, sec. 2.7). Below the highest order, counts are *continuation* counts: how many
different tokens stood before h w. "Francisco" is frequent, but only after "San": as a guess after
an unknown context it is a bad one.

Both are callable like the neural models: ids "b t" in, log-probabilities "b t v" out.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from numbers import Integral

import torch
from jaxtyping import Float, Int
from torch import Tensor

Context = tuple[int, ...]


class NGram(ABC):
    """What the two models share: contexts of order − 1 ids, and scoring a stream of ids."""

    def __init__(self, order: int, vocab_size: int):
        for name, value in (("order", order), ("vocab_size", vocab_size)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number, at least 1")
        self.order, self.vocab_size = order, vocab_size
        self.fitted = False

    @abstractmethod
    def fit(self, tokens: Sequence[int] | Int[Tensor, " n"]) -> "NGram":
        """Count the stream of ids; returns self. A second call replaces the counts."""

    @abstractmethod
    def probability(self, token: int, context: Sequence[int] = ()) -> float:
        """p(token | the last order − 1 ids of context)."""

    @abstractmethod
    def distribution(self, context: Sequence[int] = ()) -> Float[Tensor, " v"]:
        """p(· | context), over the whole vocabulary, in float64."""

    def nll(self, tokens: Sequence[int] | Int[Tensor, " n"]) -> float:
        """−Σⱼ log p(xⱼ | x before it) in nats over every token after the first."""
        ids = self._ids(tokens)
        if len(ids) < 2:
            raise ValueError(f"{len(ids)} token(s) hold nothing to predict; give at least 2")
        reach = self.order - 1
        p = [self.probability(ids[j], ids[max(0, j - reach) : j]) for j in range(1, len(ids))]
        return -float(torch.tensor(p, dtype=torch.float64).log().sum())

    def __call__(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Log-probabilities of the next token after each position, in the place of logits."""
        if not isinstance(tokens, Tensor) or tokens.dim() != 2 or not tokens.numel():
            shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise ValueError(f"tokens are {shape}; give a tensor (batch ≥ 1, length ≥ 1) of ids")
        rows = [
            [self.distribution(self._ids(row[: i + 1])) for i in range(len(row))] for row in tokens
        ]
        return torch.stack([torch.stack(row) for row in rows]).log()

    def _ids(self, tokens: Sequence[int] | Tensor) -> Context:
        ids = tuple(tokens.tolist() if isinstance(tokens, Tensor) else tokens)
        if not set(map(type, ids)) <= {int}:  # NumPy's whole numbers count, True and 1.0 do not
            for token in ids:
                if isinstance(token, bool) or not isinstance(token, Integral):
                    raise ValueError(f"token id {token!r:.80} is not a whole number; give ids")
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(
                f"token id {wrong} is outside the vocabulary of {self.vocab_size}; "
                "use the tokenizer that the model was built for"
            )
        return ids

    def _context(self, context: Sequence[int]) -> Context:
        if not self.fitted:
            raise ValueError(f"this {type(self).__name__} has counted nothing; call fit(tokens)")
        return self._ids(context)[max(0, len(context) - self.order + 1) :]

    def _stream(self, tokens: Sequence[int] | Tensor) -> Context:
        ids = self._ids(tokens)
        if len(ids) < self.order:
            raise ValueError(f"{len(ids)} tokens hold no {self.order}-gram; give more text")
        self.fitted = True
        return ids


class AddK(NGram):
    """Add-k smoothing: every n-gram is counted k times more than it was seen (Lidstone)."""

    def __init__(self, order: int, vocab_size: int, k: float = 1.0):
        super().__init__(order, vocab_size)
        if not 0 < k < math.inf:
            raise ValueError(f"k is {k}; give a positive, finite number, or unseen tokens get 0")
        self.k = k

    def fit(self, tokens: Sequence[int] | Int[Tensor, " n"]) -> "AddK":
        """Count the n-grams of every order up to the model's: early contexts are shorter."""
        ids = self._stream(tokens)
        self._counts = [_followers(_grams(ids, n)) for n in range(1, self.order + 1)]
        return self

    def probability(self, token: int, context: Sequence[int] = ()) -> float:
        """(c(h w) + k) / (c(h) + k V)."""
        context = self._context(context)
        self._ids((token,))
        followers = self._counts[len(context)].get(context, {})
        total = sum(followers.values())
        return (followers.get(token, 0) + self.k) / (total + self.k * self.vocab_size)

    def distribution(self, context: Sequence[int] = ()) -> Float[Tensor, " v"]:
        """p(· | context)."""
        context = self._context(context)
        p = torch.full((self.vocab_size,), float(self.k), dtype=torch.float64)
        for token, count in self._counts[len(context)].get(context, {}).items():
            p[token] += count
        return p / p.sum()


class KneserNey(NGram):
    """Interpolated Kneser-Ney with one discount D for all orders.

    With `uniform` (default), the recursion ends in the uniform distribution, so that no token has
    probability 0. Without, it ends in the continuation unigrams, undiscounted, as in nltk: tokens
    that were never seen get 0 there.
    """

    def __init__(self, order: int, vocab_size: int, discount: float = 0.75, uniform: bool = True):
        super().__init__(order, vocab_size)
        if not 0 < discount < 1:
            raise ValueError(f"discount is {discount}; give a number between 0 and 1, such as 0.75")
        self.discount, self.uniform = discount, uniform

    def fit(self, tokens: Sequence[int] | Int[Tensor, " n"]) -> "KneserNey":
        """Counts of the highest order, continuation counts below it."""
        ids = self._stream(tokens)
        self._counts: list[dict[Context, dict[int, int]]] = []
        for n in range(1, self.order + 1):
            if n == self.order:
                grams = _grams(ids, n)
            else:  # one for each *different* token before the n-gram
                grams = Counter(gram[1:] for gram in _grams(ids, n + 1))
            self._counts.append(_followers(grams))
        self._totals = [
            {context: sum(followers.values()) for context, followers in level.items()}
            for level in self._counts
        ]
        return self

    def probability(self, token: int, context: Sequence[int] = ()) -> float:
        """The recursion, from the shortest context to the longest."""
        context = self._context(context)
        self._ids((token,))
        p = 1 / self.vocab_size
        for n in range(len(context) + 1):
            h = context[len(context) - n :]
            total = self._totals[n].get(h)
            if total:  # a context never seen leaves the shorter one's answer as it is
                followers = self._counts[n][h]
                d = self._discount(n)
                p = (max(followers.get(token, 0) - d, 0) + d * len(followers) * p) / total
        return p

    def distribution(self, context: Sequence[int] = ()) -> Float[Tensor, " v"]:
        """p(· | context), the same recursion on whole vectors."""
        context = self._context(context)
        p = torch.full((self.vocab_size,), 1 / self.vocab_size, dtype=torch.float64)
        for n in range(len(context) + 1):
            h = context[len(context) - n :]
            total = self._totals[n].get(h)
            if total:
                followers = self._counts[n][h]
                d = self._discount(n)
                p *= d * len(followers) / total
                index = torch.tensor(list(followers))
                counts = torch.tensor(list(followers.values()), dtype=torch.float64)
                p[index] += (counts - d).clamp(min=0) / total
        return p

    def _discount(self, n: int) -> float:
        return self.discount if n or self.uniform else 0.0


def _grams(ids: Context, n: int) -> Counter:
    return Counter(zip(*(ids[i:] for i in range(n)), strict=False))


def _followers(grams: Counter) -> dict[Context, dict[int, int]]:
    """{context: {token: count}}."""
    table: dict[Context, dict[int, int]] = {}
    for gram, count in grams.items():
        table.setdefault(gram[:-1], {})[gram[-1]] = count
    return table
