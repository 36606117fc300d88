"""Learn byte-pair merges: replace the most frequent adjacent pair by a new token, again and again.

A compression algorithm of 1994, brought to text by Sennrich, Haddow and Birch (2016), and to bytes
by GPT-2 (Radford et al. 2019). Three ideas make it fast enough in plain Python:

1. pre-tokens repeat, so the text becomes a table of *distinct* pre-tokens with their counts;
2. a merge changes only the words that hold its pair, so each pair keeps a list of those words, and
   only the pairs next to a merged one are recounted;
3. a heap finds the most frequent pair; its entries are allowed to be out of date and are corrected
   when they come up.

**Ties.** Among pairs of equal count the one with the smaller left id wins, then the smaller right
id, where ids are given in the order of creation and the 256 bytes come first, in GPT-2's order
(printable bytes, then the others). That is the rule of `tokenizers.trainers.BpeTrainer`, so the
merges are equal.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import add

from minillm.tokenizers.base import listed_texts, special_names, well_formed
from minillm.tokenizers.bpe import BPETokenizer
from minillm.tokenizers.patterns import GPT2, Splitter
from minillm.tokenizers.tokenizer_json import BYTE_ORDER

WINDOW = 1 << 18  # characters split at a time, so that memory follows the distinct pre-tokens
MARGIN = 16  # characters at a window's end that are split again with the next window
_SYMBOL_OF_BYTE = {byte: chr(i) for i, byte in enumerate(BYTE_ORDER)}


def train_bpe(
    texts: str | Iterable[str],
    vocab_size: int,
    *,
    pattern: str = GPT2,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 1,
    eos: str | None = None,
) -> BPETokenizer:
    """Return a byte-level BPE tokenizer with `vocab_size` tokens learned from `texts`.

    Ids: the 256 bytes in GPT-2's order, the merges in the order learned, then `special_tokens`.
    `eos` names the special token that ends a text (`<|endoftext|>` if that is among them).
    Fewer tokens come out when no pair occurs `min_frequency` times any more.
    """
    special_tokens = special_names(special_tokens)
    for name, value in (("vocab_size", vocab_size), ("min_frequency", min_frequency)):
        if type(value) is not int:
            raise ValueError(f"{name} is {value!r:.60}: give a whole number")
    n_tokens = vocab_size - len(special_tokens)
    if n_tokens < 256:
        raise ValueError(
            f"vocab_size {vocab_size} leaves {n_tokens} places after {len(special_tokens)} special "
            "tokens, and the 256 bytes need one each: raise vocab_size"
        )
    learned = learn_merges(count_pretokens(texts, pattern), n_tokens, min_frequency=min_frequency)
    merges = [(left, right) for left, right, _ in learned]
    ids = {bytes([byte]): i for i, byte in enumerate(BYTE_ORDER)}
    for left, right in merges:
        ids.setdefault(left + right, len(ids))
    specials = {name: len(ids) + i for i, name in enumerate(special_tokens)}
    return BPETokenizer(ids, pattern, specials, merges=merges, eos=eos)


def count_pretokens(texts: str | Iterable[str], pattern: str = GPT2) -> Counter[str]:
    """Return how often each pre-token of `texts` occurs."""
    splitter, counts, blocks = Splitter([pattern]), Counter(), Counter()

    def flush() -> None:
        for block, n in blocks.items():
            for piece in splitter.split_block(block):
                counts[piece] += n
        blocks.clear()

    for number, found in enumerate(_blocks(texts, splitter), start=1):
        blocks.update(found)
        if len(blocks) > 1 << 18 or number % 1024 == 0:
            flush()
    flush()
    return counts


def _blocks(texts: str | Iterable[str], splitter: Splitter) -> Iterator[list[str]]:
    """Yield the blocks of `texts`, split a window at a time so that memory stays small."""
    for text in listed_texts(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts must be strings, got {text!r:.60} ({type(text).__name__})")
        text, start, end = well_formed(text), 0, WINDOW
        while start < len(text):
            found, redo = splitter.blocks(text[start:end]), 0
            while found and redo < MARGIN and end < len(text):
                redo += len(found.pop())
            if not found:
                end += end - start  # one block fills the window: look at a larger one
                continue
            yield found
            start = min(end, len(text)) - redo
            end = start + WINDOW


def learn_merges(
    counts: Mapping[str, int], n_tokens: int, *, min_frequency: int = 1
) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield merges (left, right, count) until bytes and merges make `n_tokens` distinct tokens."""
    words = [word.encode("utf-8").decode("latin-1").translate(_SYMBOL_OF_BYTE) for word in counts]
    frequencies = list(counts.values())
    totals, holders = count_pairs(words, frequencies)
    heap = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(heap)
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    symbols = {token: chr(i) for i, token in enumerate(tokens)}
    while len(tokens) < n_tokens and heap:
        count, pair = heapq.heappop(heap)
        if -count != (total := totals.get(pair, 0)):  # out of date: put it back where it belongs
            if total > 0:
                heapq.heappush(heap, (-total, pair))
            continue
        if total < max(min_frequency, 1):
            return
        left, right = (tokens[ord(symbol)] for symbol in pair)
        if left + right not in symbols:
            symbols[left + right] = chr(len(tokens))
            tokens.append(left + right)
        yield left, right, total
        merged = symbols[left + right]
        changes = merge_pair(pair, merged, words, frequencies, holders)
        for changed, change in changes.items():
            totals[changed] = total = totals.get(changed, 0) + change
            if change > 0:
                heapq.heappush(heap, (-total, changed))
        totals.pop(pair, None)


def count_pairs(
    words: Sequence[str], frequencies: Sequence[int]
) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Return for each adjacent pair its count (overlaps included) and the words that hold it."""
    totals, holders = defaultdict(int), defaultdict(list)
    for i, (word, frequency) in enumerate(zip(words, frequencies, strict=True)):
        for pair in map(add, word, word[1:]):
            totals[pair] += frequency
            holders[pair].append(i)
    return totals, holders


def merge_pair(
    pair: str,
    merged: str,
    words: list[str],
    frequencies: Sequence[int],
    holders: dict[str, list[int]],
) -> dict[str, int]:
    """Replace `pair` by `merged` in every word, in place; return the change of each pair's count.

    Splitting a word at the pair leaves what stands between its occurrences: an empty part in the
    middle means that two occurrences touch.
    """
    first, second = pair
    left, right = defaultdict(list), defaultdict(list)  # neighbor → the words it occurs in
    touching = []
    for i in holders.pop(pair):
        parts = words[i].split(pair)
        if len(parts) == 1:
            continue  # an earlier merge took the pair away
        words[i] = merged.join(parts)
        for before, after in pairwise(parts):
            if before:
                left[before[-1]].append(i)
            if after:
                right[after[0]].append(i)
        if len(parts) > 2:
            touching += [i] * parts[1:-1].count("")

    changes = defaultdict(int)
    moved = [(c + first, c + merged, where) for c, where in left.items()]
    moved += [(second + c, merged + c, where) for c, where in right.items()]
    moved += [(second + first, merged + merged, touching)] if touching else []
    for old, new, where in moved:
        n = sum(map(frequencies.__getitem__, where))
        changes[old] -= n
        changes[new] += n
        holders[new] += where
    return changes
