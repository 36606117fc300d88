"""Learn a WordPiece vocabulary: merge the pair that occurs most above chance.

Google never published its trainer. This one uses the score that is usually given for it,
count(ab) / (count(a) · count(b)), in place of BPE's count(ab); everything else is as in BPE.
(Hugging Face's `WordPieceTrainer` is BPE's, by count.) Ties: the pair that occurs more often, then
the first in the order of its two pieces as text.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from minillm.tokenizers.base import special_names, well_formed
from minillm.tokenizers.wordpiece import SPECIALS, WordPieceTokenizer

Pair = tuple[str, str]


def train_wordpiece(
    texts: str | Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = SPECIALS,
    min_frequency: int = 2,
    lower: bool = True,
) -> WordPieceTokenizer:
    """Return a WordPiece tokenizer with `vocab_size` tokens learned from `texts`.

    Ids: `special_tokens`, the characters in the order of Unicode (at the start of a word, then
    inside, `##`), the merges in the order learned. Fewer tokens come out when no pair occurs
    `min_frequency` times any more.
    """
    special = {name: i for i, name in enumerate(special_names(special_tokens))}
    splitter = WordPieceTokenizer({"a": len(special)}, special, lower=lower)
    counts = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str):
            raise ValueError(f"texts must be strings, got {text!r:.60} ({type(text).__name__})")
        counts.update(splitter.split(well_formed(text)))
    letters = {piece for word in counts for piece in letter_pieces(word)}
    ids = dict(special)
    for piece in sorted(letters, key=lambda piece: (piece.startswith("##"), piece)):
        ids.setdefault(piece, len(ids))
    if len(ids) > vocab_size:
        raise ValueError(
            f"vocab_size {vocab_size} is too small: {len(special)} special tokens and "
            f"{len(letters)} characters need {len(ids)}"
        )
    for left, right, _ in learn_pieces(counts, min_frequency=min_frequency):
        if len(ids) == vocab_size:
            break
        ids.setdefault(joined(left, right), len(ids))
    vocab = {piece: i for piece, i in ids.items() if piece not in special}
    return WordPieceTokenizer(vocab, special, lower=lower)


def letter_pieces(word: str) -> list[str]:
    """Return a word's characters as pieces: "cat" becomes c, ##a, ##t."""
    return [c if i == 0 else f"##{c}" for i, c in enumerate(word)]


def joined(left: str, right: str) -> str:
    """Return the piece that two neighbors make: "c" and "##a" become "ca"."""
    return left + right.removeprefix("##")


def learn_pieces(counts: Mapping[str, int], *, min_frequency: int = 2) -> Iterator[tuple]:
    """Yield merges (left, right, score), best first, until no pair is frequent enough.

    A merge changes the counts of its two pieces, and with them the score of *every* pair that holds
    one of them, wherever it stands. All of those go onto the heap again; what comes off it with a
    score that is out of date is dropped.
    """
    words = {word: letter_pieces(word) for word in counts}
    state = _Counts(words, counts)
    heap = [state.entry(pair) for pair in state.pairs]
    heapq.heapify(heap)
    while heap:
        entry = heapq.heappop(heap)
        pair = entry[-1]
        if state.pairs.get(pair, 0) < max(min_frequency, 1) or entry != state.entry(pair):
            continue
        yield *pair, -entry[0]
        for changed in state.merge(pair):
            heapq.heappush(heap, state.entry(changed))


class _Counts:
    """How often pieces and pairs occur, and in which words, while words are being merged."""

    def __init__(self, words: dict[str, list[str]], counts: Mapping[str, int]):
        self.words, self.counts = words, counts
        self.pieces, self.pairs = Counter(), Counter()
        self.holders = defaultdict(set)  # pair → words that have it, or had it
        self.partners = defaultdict(set)  # piece → pairs with it
        for word in words:
            self._add(word, 1)

    def entry(self, pair: Pair) -> tuple:
        """Return the pair with what it is ordered by: score, count, text."""
        n, (left, right) = self.pairs[pair], pair
        return -n / (self.pieces[left] * self.pieces[right]) if n else 0.0, -n, pair

    def _add(self, word: str, sign: int) -> None:
        pieces, n = self.words[word], sign * self.counts[word]
        for piece in pieces:
            self.pieces[piece] += n
        for pair in pairwise(pieces):
            self.pairs[pair] += n
            self.holders[pair].add(word)
            self.partners[pair[0]].add(pair)
            self.partners[pair[1]].add(pair)

    def merge(self, pair: Pair) -> set[Pair]:
        """Merge `pair` wherever it stands; return the pairs whose score may have changed."""
        for word in self.holders.pop(pair):
            self._add(word, -1)
            self.words[word] = merged(self.words[word], pair)
            self._add(word, 1)
        touched = [*pair, joined(*pair)]
        changed = {near for piece in touched for near in self.partners[piece]}
        gone = {near for near in changed if self.pairs[near] <= 0}
        for near in gone:
            for piece in near:
                self.partners[piece].discard(near)
        return changed - gone


def merged(pieces: Sequence[str], pair: Pair) -> list[str]:
    """Return `pieces` with every `pair` joined, from left to right."""
    out, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            out.append(joined(*pair))
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return out
