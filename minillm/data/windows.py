"""Words and their neighbors: vocabulary, subsampling and context windows, as Word2Vec reads text.

A corpus is one stream of word ids, with −1 between sentences; windows do not cross it. A window is
a center word and the words at most `window` places from it, padded with −1 (Mikolov et al. 2013,
"Distributed Representations of Words and Phrases and their Compositionality").
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

BREAK = -1
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+\s+|\n\s*\n")


@dataclass(frozen=True)
class Words:
    """A vocabulary of words, the most frequent first, with how often each was seen."""

    words: tuple[str, ...]
    counts: Int[Tensor, " v"]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.ids


def sentences(text: str) -> list[list[str]]:
    """Lower-case words of each sentence of `text`: letters and inner apostrophes, nothing else."""
    parts = _SENTENCE_END.split(text.lower())
    return [found for part in parts if (found := _WORD.findall(part))]


def count_words(texts: Iterable[Sequence[str]], min_count: int = 5) -> Words:
    """The words seen at least `min_count` times in `texts`, which are lists of words."""
    if min_count < 1:
        raise ValueError(f"min_count is {min_count}; give at least 1")
    counted = Counter(word for text in texts for word in text)
    kept = sorted((-n, word) for word, n in counted.items() if n >= min_count)
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} word(s) occur {min_count} times; lower min_count")
    return Words(tuple(word for _, word in kept), torch.tensor([-n for n, _ in kept]))


def encode_words(texts: Iterable[Sequence[str]], words: Words) -> Int[Tensor, " n"]:
    """One stream of ids with −1 after each text; words outside the vocabulary are left out."""
    stream: list[int] = []
    for text in texts:
        stream += [words.ids[word] for word in text if word in words.ids]
        stream.append(BREAK)
    return torch.tensor(stream)


def keep_probability(
    counts: Int[Tensor, " v"], threshold: float | int = 1e-3
) -> Float[Tensor, " v"]:
    """min(1, √(t/f) + t/f) for a word of frequency f: what Google's word2vec and gensim use.

    The paper prints 1 − √(t/f) for the probability to *drop* a word, that is √(t/f) to keep it.
    """
    if threshold <= 0:
        raise ValueError(f"threshold is {threshold}; give a small positive number, such as 1e-3")
    ratio = threshold * counts.sum() / counts.double()
    return (ratio.sqrt() + ratio).clamp(max=1.0)


def subsample(
    stream: Int[Tensor, " n"], keep: Float[Tensor, " v"], generator: torch.Generator
) -> Int[Tensor, " m"]:
    """`stream` without some of its frequent words: word w stays with probability keep[w]."""
    draw = torch.rand(len(stream), generator=generator, dtype=keep.dtype)
    return stream[(stream == BREAK) | (draw < keep[stream.clamp(min=0)])]


@dataclass(frozen=True)
class ContextWindows:
    """Every word of `stream` with its neighbors, in batches.

    With `shrink`, each center's window is drawn from 1 … `window`, so that near words count more:
    a word at distance δ is seen with probability (window − δ + 1) / window.
    """

    stream: Int[Tensor, " n"]
    window: int = 5
    shrink: bool = True

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}; give at least 1")
        if not (self.stream != BREAK).any():
            raise ValueError("the stream holds no word; give ids, with −1 between sentences")

    def batches(
        self, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Int[Tensor, " b"], Int[Tensor, "b c"]]]:
        """One pass in random order: (centers, contexts), contexts padded with −1."""
        centers = (self.stream != BREAK).nonzero()[:, 0]
        centers = centers[torch.randperm(len(centers), generator=generator)]
        for places in centers.split(batch_size):
            yield self.stream[places], self.around(places, generator)

    def around(self, places: Int[Tensor, " b"], generator: torch.Generator) -> Int[Tensor, "b c"]:
        """The ids around `places`, from left to right; −1 where there is none."""
        reach = torch.full(places.shape, self.window)
        if self.shrink:
            reach = torch.randint(1, self.window + 1, places.shape, generator=generator)
        distance = torch.arange(1, self.window + 1)
        right = self._reached(places[:, None] + distance)
        left = self._reached(places[:, None] - distance)
        near = distance <= reach[:, None]
        left, right = (side.masked_fill(~near, BREAK) for side in (left, right))
        return torch.cat([left.flip(1), right], dim=1)

    def _reached(self, places: Int[Tensor, "b w"]) -> Int[Tensor, "b w"]:
        """Ids at `places` walking outward, −1 from the first break on."""
        inside = (places >= 0) & (places < len(self.stream))
        found = self.stream[places.clamp(0, len(self.stream) - 1)].masked_fill(~inside, BREAK)
        return found.masked_fill((found == BREAK).cumsum(1) > 0, BREAK)
