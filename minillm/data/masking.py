"""What BERT learns from (Devlin et al. 2019, 3.1, A.1): masked tokens and pairs of sentences.

Of the tokens that are chosen 80% become `[MASK]`, 10% a random token, 10% stay as they are. Which
ones are chosen is decided separately, token by token or word by word. Every batch is a pure
function of (seed, index), as in `data.batching`.
"""

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

IGNORED = -100


def choose_tokens(
    maskable: Bool[Tensor, "b t"], rate: float = 0.15, *, generator: Generator | None = None
) -> Bool[Tensor, "b t"]:
    """Each maskable token with probability `rate`, independently of all others."""
    _check_rate(rate)
    return (torch.rand(maskable.shape, generator=generator) < rate) & maskable


def choose_exactly(
    maskable: Bool[Tensor, "b t"], rate: float = 0.15, *, generator: Generator | None = None
) -> Bool[Tensor, "b t"]:
    """Of the n maskable tokens of each row max(1, round(`rate` n)), as in the authors' code."""
    _check_rate(rate)
    wanted = (rate * maskable.sum(1)).round().clamp(min=1)
    order = torch.rand(maskable.shape, generator=generator).masked_fill(~maskable, 2.0)
    rank = order.argsort(1).argsort(1)
    return (rank < wanted[:, None]) & maskable


def choose_words(
    words: Int[Tensor, "b t"],
    maskable: Bool[Tensor, "b t"],
    rate: float = 0.15,
    *,
    generator: Generator | None = None,
) -> Bool[Tensor, "b t"]:
    """Each word with probability `rate`, with all of its tokens (whole-word masking).

    `words[b, t]` is the number of the word that token t belongs to; see `word_numbers`.
    """
    _check_rate(rate)
    if words.shape != maskable.shape or int(words.min()) < 0:
        raise ValueError(f"words {tuple(words.shape)} must number every token, from 0")
    n = int(words.max()) + 1
    drawn = torch.rand(len(words), n, generator=generator) < rate
    return drawn.gather(1, words) & maskable


def word_numbers(tokens: Int[Tensor, "b t"], continues: Bool[Tensor, " v"]) -> Int[Tensor, "b t"]:
    """Number of each token's word in its row; `continues[i]` says that token i goes on (`##`)."""
    starts = ~continues[tokens]
    starts[:, 0] = True
    return starts.long().cumsum(1) - 1


def mask_tokens(
    tokens: Int[Tensor, "b t"],
    chosen: Bool[Tensor, "b t"],
    *,
    mask_id: int,
    vocab_size: int,
    masked: float | int = 0.8,
    random: float | int = 0.1,
    generator: Generator | None = None,
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """(inputs, targets): of the chosen tokens 80% masked, 10% replaced at random, 10% kept.

    Targets are the tokens themselves where they were chosen, kept ones included, and −100
    elsewhere. A random token is any of the vocabulary, the old one or a special one included, as
    in the authors' code.
    """
    if not 0 <= mask_id < vocab_size:
        raise ValueError(f"mask_id {mask_id} lies outside the vocabulary of {vocab_size}")
    if min(masked, random) < 0 or masked + random > 1:
        raise ValueError(f"masked {masked} and random {random} must be shares, at most 1 together")
    if chosen.shape != tokens.shape or chosen.dtype != torch.bool:
        raise ValueError(f"chosen must be boolean {tuple(tokens.shape)}, got {chosen.dtype}")
    fate = torch.rand(tokens.shape, generator=generator)
    other = torch.randint(vocab_size, tokens.shape, generator=generator)
    inputs = torch.where(chosen & (fate < masked), mask_id, tokens)
    replaced = chosen & (fate >= masked) & (fate < masked + random)
    inputs = torch.where(replaced, other, inputs)
    return inputs, tokens.masked_fill(~chosen, IGNORED)


class SentencePair(NamedTuple):
    """Two pieces of text as one row: `[CLS]` first `[SEP]` second `[SEP]`, padded on the right."""

    tokens: Int[Tensor, "b t"]
    segments: Int[Tensor, "b t"]
    attention_mask: Bool[Tensor, "b t"]
    is_random: Int[Tensor, " b"]


def join_pair(
    first: Sequence[int], second: Sequence[int] | None, *, cls_id: int, sep_id: int
) -> tuple[list[int], list[int]]:
    """(tokens, segments) of `[CLS]` first `[SEP]`, and second `[SEP]` where there is one."""
    tokens, segments = [cls_id, *first, sep_id], [0] * (len(first) + 2)
    if second is None:
        return tokens, segments
    return [*tokens, *second, sep_id], segments + [1] * (len(second) + 1)


class NextSentencePairs:
    """Pairs for next-sentence prediction: in half of them the second piece follows the first.

    In the other half it comes from another document (label 1, as in the authors' checkpoints).
    Each pair begins at a random sentence; the first piece is a random number of sentences, both
    together are cut to `max_len` with the special tokens. `pairs[i]` is batch i.

    Args:
        documents: each a list of sentences, each a list of ids; at least two documents.
        max_len: tokens of a row, `[CLS]` and two `[SEP]` included.
        batch_size: rows of a batch.
        cls_id, sep_id, pad_id: the ids of the special tokens.
        seed: fixes every batch.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[Sequence[int]]],
        max_len: int,
        batch_size: int,
        *,
        cls_id: int,
        sep_id: int,
        pad_id: int = 0,
        seed: int = 0,
    ) -> None:
        self.documents = [[list(s) for s in d if len(s)] for d in documents]
        self.documents = [d for d in self.documents if d]
        if len(self.documents) < 2:
            raise ValueError("give at least two documents: a random piece comes from another one")
        if max_len < 5 or batch_size < 1:
            raise ValueError(f"max_len {max_len} must be at least 5, batch_size {batch_size} 1")
        self.max_len, self.batch_size, self.seed = max_len, batch_size, seed
        self.cls_id, self.sep_id, self.pad_id = cls_id, sep_id, pad_id
        self._places = np.array(
            [(d, s) for d, text in enumerate(self.documents) for s in range(len(text) - 1)]
        )
        if len(self._places) == 0:
            raise ValueError("no document has two sentences: there is nothing that follows another")

    def pair(self, random: np.random.Generator) -> tuple[list[int], list[int], bool]:
        """(first piece, second piece, whether the second comes from another document)."""
        budget = self.max_len - 3
        document, start = self._places[random.integers(len(self._places))]
        text = self.documents[document]
        wanted, first, end = random.integers(1, budget), [], start
        while end < len(text) - 1 and (not first or len(first) + len(text[end]) <= wanted):
            first += text[end]
            end += 1
        is_random = bool(random.random() < 0.5)
        if is_random:
            other = random.integers(len(self.documents) - 1)
            text = self.documents[other + (other >= document)]
            end = random.integers(len(text))
        second: list[int] = []
        while end < len(text) and len(first) + len(second) < budget:
            second += text[end]
            end += 1
        return (*cut_pair(first, second, budget), is_random)

    def __getitem__(self, index: int) -> SentencePair:
        if not isinstance(index, Integral) or index < 0:
            raise IndexError(f"batch {index!r:.60} does not exist; batches are numbered from 0")
        random = np.random.default_rng([self.seed, int(index)])
        tokens = torch.full((self.batch_size, self.max_len), self.pad_id)
        segments = torch.zeros_like(tokens)
        labels = torch.zeros(self.batch_size, dtype=torch.long)
        lengths = torch.zeros(self.batch_size, dtype=torch.long)
        for row in range(self.batch_size):
            first, second, is_random = self.pair(random)
            ids, kinds = join_pair(first, second, cls_id=self.cls_id, sep_id=self.sep_id)
            tokens[row, : len(ids)] = torch.tensor(ids)
            segments[row, : len(ids)] = torch.tensor(kinds)
            lengths[row], labels[row] = len(ids), int(is_random)
        mask = torch.arange(self.max_len) < lengths[:, None]
        return SentencePair(tokens, segments, mask, labels)

    def __iter__(self) -> Iterator[SentencePair]:
        index = 0
        while True:
            yield self[index]
            index += 1


def cut_pair(
    first: Sequence[int], second: Sequence[int], budget: int
) -> tuple[list[int], list[int]]:
    """Both pieces cut to `budget` tokens together, one token at a time from the longer one.

    The first loses its beginning and the second its end, so that what stays still touches. (The
    authors' code cuts either end, at random.)
    """
    if budget < 2:
        raise ValueError(f"budget is {budget}; two pieces need at least 2 tokens")
    n, m = len(first), len(second)
    over = max(0, n + m - budget)
    for _ in range(over):
        if n >= m:
            n -= 1
        else:
            m -= 1
    return list(first[len(first) - n :]), list(second[:m])


class PreTrainingBatch(NamedTuple):
    """Masked pairs: what BERT reads, and what it should say."""

    tokens: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]
    segments: Int[Tensor, "b t"]
    attention_mask: Bool[Tensor, "b t"]
    is_random: Int[Tensor, " b"]


class MaskedPairs:
    """Batches of `pairs` with 15% of their ordinary tokens chosen and masked: `batches[i]`.

    The masks of batch i depend on (seed, i) alone. BERT made ten masked copies of its text before
    training, RoBERTa new masks each time a text comes up (dynamic masking), as here.
    """

    def __init__(
        self,
        pairs: Any,
        *,
        mask_id: int,
        vocab_size: int,
        special_ids: Sequence[int],
        rate: float = 0.15,
        seed: int = 0,
    ) -> None:
        _check_rate(rate)
        self.pairs, self.mask_id, self.vocab_size = pairs, mask_id, vocab_size
        self.special = torch.tensor(sorted(special_ids))
        self.rate, self.seed = rate, seed

    def __getitem__(self, index: int) -> PreTrainingBatch:
        pair = self.pairs[index]
        maskable = pair.attention_mask & ~torch.isin(pair.tokens, self.special)
        seed = np.random.SeedSequence([self.seed, int(index)]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed[0] >> 1))
        inputs, targets = mask_tokens(
            pair.tokens,
            choose_exactly(maskable, self.rate, generator=generator),
            mask_id=self.mask_id,
            vocab_size=self.vocab_size,
            generator=generator,
        )
        return PreTrainingBatch(inputs, targets, pair.segments, pair.attention_mask, pair.is_random)


def _check_rate(rate: float | int) -> None:
    if not isinstance(rate, float | int) or not 0 < rate <= 1:
        raise ValueError(f"rate is {rate!r:.60}; give a share above 0, such as 0.15")
