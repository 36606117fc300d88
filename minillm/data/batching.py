"""Token batches in a fixed random order, each one a pure function of (seed, index).

A loader that keeps a position and a random state has to save both to be resumed, and gets it
wrong when it is interrupted in between. Here nothing is kept: batch number i is computed from i.
Resuming a run at step 1,000 means asking for batch 1,000.
"""

from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def join_documents(documents: Iterable[Sequence[int]], separator: int) -> Int[Tensor, " n"]:
    """One stream of ids: separator, document 1, separator, document 2, …, separator.

    With the separator (the end-of-text token) on both sides, the first token of a document is
    predicted from "a new text begins here", and the model also learns where texts end.
    """
    if not isinstance(separator, Integral) or separator < 0:
        raise ValueError(f"separator is {separator!r:.60}; give the id of the end-of-text token")
    ids = [separator]
    for document in documents:
        ids.extend(document)
        ids.append(separator)
    return check_tokens(ids).long()


class TokenWindows:
    """Random windows of a token stream: `windows[i]` is the pair (inputs, targets) of batch i.

    Each epoch cuts the stream into non-overlapping windows of `seq_len` tokens, from a random
    offset, and deals them out in a random order. Targets are the inputs one token later. A batch
    may straddle two epochs. Windows cross document borders; the separator token marks them.

    Args:
        tokens: ids of the stream, at least seq_len + 1 of them.
        seq_len: length of a window, in tokens.
        batch_size: windows per batch.
        seed: fixes offsets and orders of all epochs.
        vocab_size: if given, ids outside 0 … vocab_size − 1 are an error.
    """

    def __init__(
        self,
        tokens: Int[Tensor, " n"] | Sequence[int] | np.ndarray,
        seq_len: int,
        batch_size: int,
        seed: int = 0,
        vocab_size: int | None = None,
    ):
        for name, value in (("seq_len", seq_len), ("batch_size", batch_size)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number, at least 1")
        if type(seed) is not int or seed < 0:
            raise ValueError(f"seed is {seed!r}; give a whole number, 0 or more")
        self.tokens = check_tokens(tokens, vocab_size)
        n = len(self.tokens)
        if n < seq_len + 1:
            raise ValueError(
                f"{n} tokens are too few for a window of {seq_len} and its next token; "
                f"give at least {seq_len + 1} tokens or a shorter seq_len"
            )
        self.seq_len, self.batch_size, self.seed = seq_len, batch_size, seed
        self.windows_per_epoch = max(1, (n - seq_len) // seq_len)
        self._offsets = n - self.windows_per_epoch * seq_len  # how many there are to choose from
        self._epoch: tuple[int, np.ndarray] | None = None  # the last epoch's starts, a memo

    @property
    def batches_per_epoch(self) -> float:
        """Batches after which every window has been dealt once."""
        return self.windows_per_epoch / self.batch_size

    def __getitem__(self, index: int) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
        """Batch number `index` ≥ 0 (there is no last one): inputs and targets."""
        if not isinstance(index, Integral):
            raise ValueError(f"batch {index!r:.60} is no number; ask for one batch, windows[0]")
        if index < 0:
            raise IndexError(f"batch {index} does not exist; batches are numbered from 0")
        first = index * self.batch_size
        starts = torch.tensor([self._start(first + i) for i in range(self.batch_size)])
        window = self.tokens[starts[:, None] + torch.arange(self.seq_len + 1)].long()
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()

    def from_index(self, index: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `index`, `index` + 1, … without an end."""
        while True:
            yield self[index]
            index += 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.from_index(0)

    def _start(self, number: int) -> int:
        """Where window `number`, counted over all epochs, starts in the stream."""
        epoch, place = divmod(number, self.windows_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            offset = random.integers(self._offsets)
            order = random.permutation(self.windows_per_epoch)
            self._epoch = epoch, offset + order * self.seq_len
        return int(self._epoch[1][place])


def check_tokens(
    tokens: Int[Tensor, " n"] | Sequence[int] | np.ndarray, vocab_size: int | None = None
) -> Int[Tensor, " n"]:
    """`tokens` as a flat integer tensor on the CPU, or a ValueError that says why not."""
    try:
        tokens = torch.as_tensor(tokens).cpu()
    except (TypeError, RuntimeError, ValueError) as error:
        kind = type(tokens).__name__
        raise ValueError(f"tokens of type {kind} are no ids ({error}); give integers") from error
    if tokens.dim() != 1:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give one flat stream of ids")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"tokens have dtype {tokens.dtype}; token ids are integers")
    if len(tokens) and int(tokens.min()) < 0:
        raise ValueError(f"token id {int(tokens.min())} is negative; ids start at 0")
    if vocab_size is not None and len(tokens) and int(tokens.max()) >= vocab_size:
        raise ValueError(
            f"token id {int(tokens.max())} is outside the vocabulary of {vocab_size}; "
            "use the tokenizer that the model was built for"
        )
    return tokens
