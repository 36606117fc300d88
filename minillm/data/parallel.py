"""Sentence pairs in two languages: reading them, splitting them, and batches by number.

The corpus is that of the asset `zh-en`: Chinese sentences of the HSK course, levels 1 to 6, with
English translations (CC-BY-SA-4.0). Its file has 4,354 rows, of which 82 say "placeholder" or "PH"
where a translation should be; 4,272 are pairs. Some sentences occur twice, and some English ones
translate several Chinese ones; a split that ignores this would test on what was trained.
"""

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minillm import assets

IGNORED = -100
MISSING = re.compile(r"placeholder(-\w+)?|PH")


@dataclass(frozen=True)
class SentencePair:
    """A Chinese sentence and its English translation; words with their pinyin; the HSK level."""

    chinese: str
    english: str
    words: tuple[tuple[str, str], ...] = ()
    level: int = 0


def zh_en_pairs() -> list[SentencePair]:
    """The 4,272 pairs of the asset `zh-en`, in the order of its file. The first call downloads."""
    path = Path(assets.fetch("zh-en"))
    try:
        return [
            SentencePair(
                row["chinese"],
                row["translation"]["en"],
                tuple((token["word"], token["pinyin"]) for token in row["tokens"]),
                row["hsk_level"],
            )
            for row in json.loads(path.read_text("utf-8"))
            if not MISSING.fullmatch(row["translation"]["en"])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the list of sentences expected; fetch it again") from error


def split_pairs(
    pairs: Sequence[SentencePair], n_held_out: int, seed: int = 0
) -> tuple[list[SentencePair], list[SentencePair]]:
    """(training, held-out): about `n_held_out` pairs of which neither side occurs in training.

    Pairs that share a sentence, on either side and ignoring case, form a group, and whole groups
    are drawn at random, so one more or fewer pair may be held out.
    """
    if not 1 <= n_held_out < len(pairs):
        raise ValueError(f"n_held_out is {n_held_out}; give 1 to {len(pairs) - 1} of the pairs")
    groups = _groups(pairs)
    random.Random(seed).shuffle(groups)
    held_out: set[int] = set()
    for group in groups[:-1]:  # at least one group stays for training
        if len(held_out) >= n_held_out:
            break
        held_out.update(group)
    training = [pair for i, pair in enumerate(pairs) if i not in held_out]
    return training, [pair for i, pair in enumerate(pairs) if i in held_out]


def _groups(pairs: Sequence[SentencePair]) -> list[list[int]]:
    """Numbers of the pairs, those that share a sentence together (connected components)."""
    root = list(range(len(pairs)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, pair in enumerate(pairs):
        for key in (("zh", pair.chinese), ("en", pair.english.casefold())):
            root[find(i)] = find(first.setdefault(key, i))
    groups: dict[int, list[int]] = {}
    for i in range(len(pairs)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def pad_right(
    rows: Iterable[Sequence[int]], value: int
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Rows of unequal length as one tensor filled up with `value`; True where a row's own id is."""
    rows = [torch.as_tensor(row, dtype=torch.long) for row in rows]
    if not rows or not all(len(row) for row in rows):
        raise ValueError("every row needs at least one id; end each with the end token")
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


class PairBatches:
    """`batches[i]` = (source, source_mask, decoder inputs, targets) of batch i, drawn at random.

    A pure function of (seed, i), as `TokenWindows` is. Each epoch deals every pair once. A source
    ends with `eos_id`; the decoder reads `start_id` and the target, and predicts the target and
    `eos_id`. Padding is on the right: `pad_id` in inputs, −100 in targets. Pairs of similar length
    share a batch: little is spent on padding.

    Args:
        sources: ids of every source sentence, without special tokens.
        targets: ids of every target sentence, likewise.
        batch_size: pairs a batch; an epoch's last batch goes on with the next epoch's first pairs.
        start_id, eos_id, pad_id: ids of the special tokens.
        seed: fixes the orders of all epochs.
        bucket: this many batches are drawn at a time and sorted by length; 1 does not sort.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        batch_size: int,
        *,
        start_id: int,
        eos_id: int,
        pad_id: int,
        seed: int = 0,
        bucket: int = 1,
    ) -> None:
        if len(sources) != len(targets) or not sources:
            raise ValueError(
                f"{len(sources)} sources and {len(targets)} targets; give as many, at least one"
            )
        for name, value in (("batch_size", batch_size), ("bucket", bucket)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number, at least 1")
        self.sources, self.targets = sources, targets
        self.batch_size, self.seed, self.bucket = batch_size, seed, bucket
        self.start_id, self.eos_id, self.pad_id = start_id, eos_id, pad_id
        self._epoch: tuple[int, np.ndarray] | None = None  # the last epoch's order, a memo

    @property
    def batches_per_epoch(self) -> float:
        """Batches after which every pair has been dealt once."""
        return len(self.sources) / self.batch_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Batch number `index` ≥ 0 (there is no last one)."""
        if index < 0:
            raise IndexError(f"batch {index} does not exist; batches are numbered from 0")
        first = index * self.batch_size
        return self.batch([self._pair(first + i) for i in range(self.batch_size)])

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The batch of the pairs with these numbers."""
        sources = [[*self.sources[i], self.eos_id] for i in numbers]
        inputs = [[self.start_id, *self.targets[i]] for i in numbers]
        targets = [[*self.targets[i], self.eos_id] for i in numbers]
        return (
            *pad_right(sources, self.pad_id),
            pad_right(inputs, self.pad_id)[0],
            pad_right(targets, IGNORED)[0],
        )

    def _pair(self, number: int) -> int:
        """Which pair is the one with this number, counted over all epochs."""
        epoch, place = divmod(number, len(self.sources))
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return int(self._epoch[1][place])

    def _order(self, epoch: int) -> np.ndarray:
        """The pairs in random order; sorted within buckets, whose batches are shuffled again."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.sources))
        if self.bucket == 1:
            return order
        lengths = np.array(
            [len(s) + len(t) for s, t in zip(self.sources, self.targets, strict=True)]
        )
        size, batches = self.bucket * self.batch_size, []
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            chunk = chunk[lengths[chunk].argsort(kind="stable")]
            batches += [
                chunk[i : i + self.batch_size] for i in range(0, len(chunk), self.batch_size)
            ]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        shuffled = [batches[i] for i in random.permutation(len(batches))]
        return np.concatenate(shuffled + last)
