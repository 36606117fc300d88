"""Merge the symbols of one pre-token: always the adjacent pair of lowest rank, leftmost first.

A sequence of tokens is written here as a Python string, one character `chr(id)` per token. That
makes a pair of tokens a string of two characters and lets `str.replace` do the work of a merge. Ids
reach 0x10FFFF that way, five times the size of o200k.

`merge_scan` is the definition. `merge_rounds` and `merge_heap` give the same result on long pieces
in O(n log n), where the scan would need O(n²): a megabyte of blanks is one pre-token.
"""

import heapq
from collections.abc import Callable, Mapping
from operator import add

NEVER = 1 << 62  # the rank of a pair that may not be merged
LONG = 96  # from this many symbols on the heap is faster than the scan


class Memo(dict):
    """A dictionary that computes missing values with `function` and keeps them up to a limit."""

    def __init__(self, function: Callable, limit: int = 1 << 18, longest: int = 64):
        super().__init__()
        self.function, self.limit, self.longest = function, limit, longest

    def __missing__(self, key):
        value = self.function(key)
        if len(self) < self.limit and len(key) <= self.longest:
            self[key] = value
        return value


def merge(symbols: str, ranks: Mapping[str, int], symbol_of: Callable[[int], str]) -> str:
    """Apply every merge that `ranks` allows to `symbols`; `symbol_of(rank)` is the merged symbol.

    `ranks[pair]` must answer `NEVER` for a pair that cannot be merged.
    """
    if len(symbols) < LONG:
        return merge_scan(symbols, ranks, symbol_of)
    return merge_heap(merge_rounds(symbols, ranks, symbol_of), ranks, symbol_of)


def merge_scan(symbols: str, ranks: Mapping[str, int], symbol_of: Callable[[int], str]) -> str:
    """Find the lowest rank, merge its first pair, repeat: O(n²), fastest for short pieces."""
    found = [ranks[pair] for pair in map(add, symbols, symbols[1:])]
    while found and (rank := min(found)) != NEVER:
        i = found.index(rank)
        symbols = symbols[:i] + symbol_of(rank) + symbols[i + 2 :]
        del found[i]
        if i < len(found):
            found[i] = ranks[symbols[i : i + 2]]
        if i:
            found[i - 1] = ranks[symbols[i - 1 : i + 1]]
    return symbols


def merge_rounds(symbols: str, ranks: Mapping[str, int], symbol_of: Callable[[int], str]) -> str:
    """Merge all occurrences of the lowest pair at once, as long as each round removes a tenth.

    Each round costs O(n) and shrinks n, so all of them together are O(n). A round is right only if
    no pair it creates has a lower rank than its own (trained vocabularies keep to that); a round
    that breaks this is undone and left to `merge_heap`.
    """
    before, last = symbols, -1
    while True:
        pairs = adjacent_pairs(symbols)
        rank = min(map(ranks.__getitem__, pairs), default=NEVER)
        if rank <= last:
            return before
        lowest = [pair for pair in pairs if ranks[pair] == rank]
        if rank == NEVER or len(lowest) > 1:
            return symbols
        pair, merged = lowest[0], symbol_of(rank)
        shorter = symbols.replace(pair, merged)
        if len(shorter) > 0.9 * len(symbols) or ranks[merged + pair[0]] <= rank:
            return symbols
        before, symbols, last = symbols, shorter, rank


def adjacent_pairs(symbols: str) -> set[str]:
    """Return the distinct pairs of neighbors; in a run of few symbols, by searching for each."""
    distinct = set(symbols)
    if len(distinct) <= 8:
        return {a + b for a in distinct for b in distinct if a + b in symbols}
    return set(map(add, symbols, symbols[1:]))


def merge_heap(symbols: str, ranks: Mapping[str, int], symbol_of: Callable[[int], str]) -> str:
    """Keep the pairs in a heap and the symbols in a linked list: O(n log n) for any input."""
    cells, n = list(symbols), len(symbols)
    after, before = list(range(1, n + 1)), list(range(-1, n - 1))
    found = [ranks[pair] for pair in map(add, symbols, symbols[1:])]
    heap = [(rank, i) for i, rank in enumerate(found) if rank != NEVER]
    heapq.heapify(heap)
    while heap:
        rank, i = heapq.heappop(heap)
        j = after[i]
        if not cells[i] or j == n or ranks[cells[i] + cells[j]] != rank:
            continue  # an entry from before one of the two was merged away
        cells[i], cells[j], after[i] = symbol_of(rank), "", after[j]
        h, j = before[i], after[i]
        if j < n:
            before[j] = i
            if (rank := ranks[cells[i] + cells[j]]) != NEVER:
                heapq.heappush(heap, (rank, i))
        if h >= 0 and (rank := ranks[cells[h] + cells[i]]) != NEVER:
            heapq.heappush(heap, (rank, h))
    return "".join(cells)
