"""Documents of many lengths in rows of one length, without one seeing another.

Cutting a joined stream into windows (`TokenWindows`) wastes nothing, but cuts documents in two and
lets a document see the end of another. Padding every document wastes most of a batch. Packing puts
several whole documents into a row, each with positions from 0 and a mask of its own, so that the
row computes exactly what its documents would compute alone.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minillm.data.batching import check_tokens


@dataclass(frozen=True)
class Packed:
    """Rows of packed documents; `segments` numbers the documents of a row from 1, 0 is padding.

    `documents` says which document stands in which row and from where: (row, first column) for
    each, in the order given.
    """

    tokens: Int[Tensor, "n t"]
    positions: Int[Tensor, "n t"]
    segments: Int[Tensor, "n t"]
    documents: tuple[tuple[int, int], ...]

    @property
    def mask(self) -> Bool[Tensor, "n t t"]:
        """What `attention_mask` needs: each token sees its own document."""
        return block_diagonal_mask(self.segments)

    @property
    def targets(self) -> Int[Tensor, "n t"]:
        """The next token of the same document; −100 behind its last token and at padding."""
        same = self.segments[:, 1:] == self.segments[:, :-1]
        known = same & (self.segments[:, 1:] > 0)
        following = self.tokens[:, 1:].masked_fill(~known, -100)
        return torch.nn.functional.pad(following, (0, 1), value=-100)

    @property
    def share_used(self) -> float:
        """Real tokens among all places."""
        return float((self.segments > 0).double().mean())


def block_diagonal_mask(segments: Int[Tensor, "n t"]) -> Bool[Tensor, "n t t"]:
    """True where query and key belong to one document, and neither is padding (segment 0)."""
    return (segments[:, :, None] == segments[:, None]) & (segments[:, :, None] > 0)


def pack(
    documents: Iterable[Sequence[int]],
    seq_len: int,
    *,
    pad: int = 0,
    order: Literal["best_fit", "as_given"] = "best_fit",
) -> Packed:
    """Rows of `seq_len` places that hold the documents whole, side by side, filled up with `pad`.

    "best_fit" puts the longest documents first, each into the row that it fills best: few rows, in
    an order of their own. "as_given" keeps the order and starts a new row whenever the next
    document does not fit. A document longer than `seq_len` is a ValueError: cut it yourself.
    """
    if type(seq_len) is not int or seq_len < 1:
        raise ValueError(f"seq_len is {seq_len!r}; give a whole number, at least 1")
    if order not in ("best_fit", "as_given"):
        raise ValueError(f'order must be "best_fit" or "as_given", got {order!r}')
    documents = list(documents)
    if not documents:
        raise ValueError("no documents to pack; give at least one")
    lengths = [len(document) for document in documents]
    for number, length in enumerate(lengths):
        if not 1 <= length <= seq_len:
            raise ValueError(
                f"document {number} has {length} tokens and a row {seq_len} places; leave out "
                "empty documents, and cut long ones or choose a longer seq_len"
            )
    rows = [check_tokens(document).long() for document in documents]
    bins = best_fit(lengths, seq_len) if order == "best_fit" else _next_fit(lengths, seq_len)
    tokens = torch.full((len(bins), seq_len), pad)
    positions, segments = torch.zeros_like(tokens), torch.zeros_like(tokens)
    places = [(0, 0)] * len(rows)
    for n, members in enumerate(bins):
        begin = 0
        for segment, document in enumerate(members, start=1):
            end = begin + lengths[document]
            tokens[n, begin:end] = rows[document]
            positions[n, begin:end] = torch.arange(lengths[document])
            segments[n, begin:end] = segment
            places[document], begin = (n, begin), end
    return Packed(tokens, positions, segments, tuple(places))


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: the longest first, each where the least room is left (Johnson 1974).

    Returns the numbers of the items in each bin. At most 11/9 of the fewest bins possible, plus 4.
    """
    room: list[tuple[int, int]] = []  # (places left, bin), sorted
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect_left(room, (lengths[item], 0))
        if place == len(room):
            bins.append([])
            left, number = capacity, len(bins) - 1
        else:
            left, number = room.pop(place)
        bins[number].append(item)
        insort(room, (left - lengths[item], number))
    return bins


def _next_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """In the order given; a new bin whenever the next item does not fit into the last one."""
    bins, left = [], -1
    for item, length in enumerate(lengths):
        if length > left:
            bins.append([])
            left = capacity
        bins[-1].append(item)
        left -= length
    return bins
