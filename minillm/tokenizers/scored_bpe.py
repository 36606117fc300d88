"""Byte-pair encoding as SentencePiece runs it: pieces with scores in place of a list of merges.

Two neighbors may merge if together they are a piece, whoever they are; the pair whose piece scores
highest goes first, among equals the leftmost. A trained model's scores are 0, -1, -2, … in the
order of learning, so the earliest merge wins, as in every BPE. The text is not cut into words
first: it is one sequence of characters, blanks among them as `▁`.
"""

import heapq
import random
from collections.abc import Callable, Collection, Mapping

import regex

from minillm.tokenizers.merging import Memo

BLANK = "▁"
_WORDS = regex.compile(f"{BLANK}*[^{BLANK}]+|{BLANK}+")


class ScoredBPE:
    """Pieces with scores, merged greedily.

    `whole` are pieces that are taken wherever they stand and merge with nothing (SentencePiece:
    user-defined symbols). `unused` ones may be formed on the way but fall apart again at the end.
    """

    def __init__(
        self,
        scores: Mapping[str, float],
        *,
        whole: Collection[str] = (),
        unused: Collection[str] = (),
    ):
        self.scores, self.unused = dict(scores), frozenset(unused)
        longest_first = sorted(whole, key=len, reverse=True)
        self._symbols = regex.compile("|".join([*map(regex.escape, longest_first), "(?s:.)"]))
        self.whole = frozenset(whole)
        inner = regex.compile(f"[^{BLANK}]{BLANK}")
        self._by_word = not self.unused and not any(map(inner.search, self.scores))
        self._words = Memo(lambda word: tuple(self._merge(word)))

    def best(self, text: str) -> list[str]:
        """Return `text` in pieces; a character that is in no piece stays alone."""
        if not self._by_word:
            return self._merge(text)
        # No piece has ▁ behind another character, so no merge crosses the border of a word, and
        # words can be merged one by one and remembered.
        return [piece for word in _WORDS.findall(text) for piece in self._words[word]]

    def sample(self, text: str, *, alpha: float | int, rng: random.Random) -> list[str]:
        """Return `text` in pieces, each merge skipped with probability `alpha` (BPE-dropout).

        (Provilkov, Emelianenko and Voita 2020.)
        """
        return self._merge(text, lambda: rng.random() < alpha)

    def _merge(self, text: str, skip: Callable[[], bool] = bool) -> list[str]:
        parts: list[str] = self._symbols.findall(text)
        after = [*range(1, len(parts)), -1]  # the neighbors of each part that is left
        before = [*range(-1, len(parts) - 1)]
        frozen = [part in self.whole for part in parts] if self.whole else [False] * len(parts)
        made_of, heap, neighbors = {}, [], list(enumerate(range(1, len(parts))))
        while heap or neighbors:
            for left, right in neighbors:
                if left < 0 or right < 0 or frozen[left] or frozen[right]:
                    continue
                piece = parts[left] + parts[right]
                if (score := self.scores.get(piece)) is not None:
                    heapq.heappush(heap, (-score, left, right, piece))
                    if piece in self.unused:
                        made_of[piece] = parts[left], parts[right]
            neighbors = []
            if not heap:
                break
            _, left, right, piece = heapq.heappop(heap)
            if not parts[left] or not parts[right] or parts[left] + parts[right] != piece:
                continue  # one of the two has merged with another since
            if skip():
                continue
            parts[left], parts[right], after[left] = piece, "", after[right]
            if after[right] >= 0:
                before[after[right]] = left
            neighbors = [(before[left], left), (left, after[left])]
        return [smaller for part in parts if part for smaller in self._fall_apart(part, made_of)]

    def _fall_apart(self, piece: str, made_of: Mapping[str, tuple[str, str]]) -> list[str]:
        if piece not in made_of:
            return [piece]
        return [part for half in made_of[piece] for part in self._fall_apart(half, made_of)]
