"""Blank infilling, GLM's training data (Du et al. 2022): cut spans out, fill them in afterwards.

A text becomes part A, in which every span has shrunk to one mask token, and part B, the spans in
some order, each after a start token and, among the targets, before an end token:

    text      x1 x2 x3 x4 x5 x6, spans x3 and x5 x6
    tokens    x1 x2 [M] x4 [M] | [S] x5 x6  | [S] x3
    targets    –  –  –  –   –  |  x5 x6 [E] |  x3 [E]
    in text    0  1  2  3   4  |   4  4  4  |   2  2
    in block   0  0  0  0   0  |   1  2  3  |   1  2

Spans are (start, end) pairs of the text's tokens, in order and with at least one token between two.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from minillm.data.batching import check_tokens

IGNORED = -100
Span = tuple[int, int]


@dataclass(frozen=True)
class BlankTokens:
    """Ids of the special tokens: the hole `mask`, the span's `start`, its `end`, and padding."""

    mask: int
    start: int
    end: int
    pad: int = 0


@dataclass(frozen=True)
class Blanked:
    """One text with holes (the first `context` tokens, part A) and what fills them (part B)."""

    tokens: Int[Tensor, " t"]
    targets: Int[Tensor, " t"]
    positions: Int[Tensor, "2 t"]
    context: int


def blank_out(
    text: Int[Tensor, " n"] | Sequence[int],
    spans: Sequence[Span],
    special: BlankTokens,
    *,
    order: Sequence[int] | None = None,
    mask: int | None = None,
) -> Blanked:
    """Cut `spans` out of `text` and write them behind it, as the table above shows (2.1).

    `order` says which span is written first, second, …: left to right when left out. `mask` takes
    the place of `special.mask` (GLM has a mask of its own for each level).
    """
    text = check_tokens(text).long()
    order = range(len(spans)) if order is None else order
    _check(text, spans, order, special)
    mask = special.mask if mask is None else mask
    tokens, holes, last = [], [], 0
    for start, end in spans:
        tokens += [*text[last:start].tolist(), mask]
        holes.append(len(tokens) - 1)
        last = end
    tokens += text[last:].tolist()
    context = len(tokens)
    targets, place, inner = [IGNORED] * context, list(range(context)), [0] * context
    for i in order:
        span = text[slice(*spans[i])].tolist()
        tokens += [special.start, *span]
        targets += [*span, special.end]
        place += [holes[i]] * (len(span) + 1)
        inner += range(1, len(span) + 2)
    return Blanked(
        torch.tensor(tokens), torch.tensor(targets), torch.tensor([place, inner]), context
    )


def restore(example: Blanked) -> Int[Tensor, " n"]:
    """The text that `blank_out` was given: every span back into its hole.

    It reads positions, not special tokens, so it proves that positions alone tell where a token of
    part B belongs.
    """
    place, inner = example.positions
    filled: dict[int, list[int]] = {}
    for i in range(example.context, len(example.tokens)):
        if inner[i] == 1:
            filled[int(place[i])] = []
        else:
            filled[int(place[i])].append(int(example.tokens[i]))
    out: list[int] = []
    for i, token in enumerate(example.tokens[: example.context].tolist()):
        out += filled.get(i, [token])
    return torch.tensor(out)


def token_spans(
    n: int, random: np.random.Generator, *, ratio: float = 0.15, mean: float | int = 3
) -> list[Span]:
    """Short spans, token level: lengths from Poisson(`mean`), none 0, until `ratio` of n is cut.

    They lie anywhere with equal probability, but never touch, and no span is the whole text (Du et
    al. 2022, 2.1; their code). The last span is drawn like the others, so a little more than
    `ratio` is cut: "until at least 15% of the original tokens are masked".
    """
    if not 0 < ratio < 1 or not mean > 0:
        raise ValueError(f"ratio is {ratio} and mean {mean}; give a share below 1, a mean above 0")
    if n < 2:
        raise ValueError(f"a text of {n} token(s) has no room for a hole and what is around it")
    lengths: list[int] = []
    while sum(lengths) < ratio * n:
        length = int(random.poisson(mean))
        room = n - sum(lengths) - max(1, len(lengths))  # a token stays between two spans
        if length > 0 and room < 1:
            break
        if length > 0:
            lengths.append(min(length, room))
    return _placed(lengths, n, random)


def _placed(lengths: Sequence[int], n: int, random: np.random.Generator) -> list[Span]:
    """Spans of these lengths, in this order, at random places that do not touch.

    Each of the m + 1 gaps between m spans gets its share of the spare tokens; a sorted draw of
    places, as in the authors' code, favors none of them.
    """
    spare = n - sum(lengths) - (len(lengths) - 1)
    at = np.sort(random.integers(0, spare + 1, size=len(lengths)))
    spans, before = [], 0
    for place, length in zip(at.tolist(), lengths, strict=True):
        spans.append((place + before, place + before + length))
        before += length + 1
    return spans


def sentence_spans(
    text: Int[Tensor, " n"] | Sequence[int],
    ends: Collection[int],
    random: np.random.Generator,
    *,
    ratio: float = 0.15,
) -> list[Span]:
    """Whole sentences, sentence level: drawn at random until `ratio` of the tokens is cut (2.1).

    A sentence ends with a token of `ends`. Two neighbors are not both cut (they would be one hole),
    and neither is the whole text; a text of one sentence gives no span.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio is {ratio}; give a share between 0 and 1, such as 0.15")
    text = check_tokens(text).tolist()
    cuts = [0, *(i + 1 for i, token in enumerate(text) if token in ends and i + 1 < len(text))]
    sentences = list(zip(cuts, [*cuts[1:], len(text)], strict=True))
    if len(sentences) < 2:
        return []
    chosen: dict[int, Span] = {}
    for i in random.permutation(len(sentences)).tolist():
        if sum(end - start for start, end in chosen.values()) >= ratio * len(text):
            break
        if i - 1 not in chosen and i + 1 not in chosen:
            chosen[i] = sentences[i]
    return [chosen[i] for i in sorted(chosen)]


def document_span(
    n: int, random: np.random.Generator, *, least: float = 0.5, to_end: bool = True
) -> list[Span]:
    """One long span, document level: its length is uniform over `least`·n … n − 1 (2.1).

    With `to_end` it reaches to the end, so that filling it in is writing on; otherwise it lies
    anywhere.
    """
    if not 0 < least < 1 or n < 2:
        raise ValueError(f"least is {least} and n {n}; give a share below 1 and 2 tokens or more")
    length = int(random.integers(min(max(1, round(least * n)), n - 1), n))
    start = n - length if to_end else int(random.integers(0, n - length + 1))
    return [(start, start + length)]


class BlankBatches:
    """`batches[i]`: batch i as a dictionary of tensors, a pure function of (seed, i).

    Windows of `seq_len` tokens are drawn at random from the stream, and each is blanked at a level
    drawn from `levels`, a share for "token", "sentence" and "document" each; spans are written in
    random order. The dictionary holds "tokens", "targets" (−100 outside part B), "positions"
    (b, 2, t) and "context", the length of part A. Rows are padded on the right, where nothing is
    predicted and no token of the row looks.

    Args:
        stream: ids of all texts, one after the other.
        seq_len: tokens of a window before it is blanked.
        batch_size: windows per batch.
        special: ids of the special tokens.
        levels: relative frequencies of the levels.
        ratio: share of the tokens to cut at token and sentence level.
        masks: a level's own mask token, where it has one.
        sentence_ends: ids that end a sentence; needed where "sentence" has a share.
        shuffle: False writes the spans from left to right.
        seed: fixes all batches.
    """

    def __init__(
        self,
        stream: Int[Tensor, " n"] | Sequence[int],
        seq_len: int,
        batch_size: int,
        special: BlankTokens,
        *,
        levels: Mapping[str, float | int],
        ratio: float = 0.15,
        masks: Mapping[str, int] | None = None,
        sentence_ends: Collection[int] = (),
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        self.stream = check_tokens(stream)
        unknown = levels.keys() - {"token", "sentence", "document"}
        if unknown or not levels or min(levels.values()) < 0 or not sum(levels.values()):
            raise ValueError(
                f"levels is {dict(levels)}; give shares of 'token', 'sentence', 'document'"
            )
        if levels.get("sentence") and not sentence_ends:
            raise ValueError("levels has 'sentence': give sentence_ends, the ids that end one")
        if seq_len < 2 or batch_size < 1 or len(self.stream) < seq_len:
            raise ValueError(
                f"seq_len is {seq_len} and batch_size {batch_size}; give at least 2 and 1, and a "
                f"stream of seq_len tokens or more ({len(self.stream)} here)"
            )
        self.seq_len, self.batch_size, self.special = seq_len, batch_size, special
        self.levels, self.ratio, self.masks = dict(levels), ratio, dict(masks or {})
        self.sentence_ends, self.shuffle, self.seed = set(sentence_ends), shuffle, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Batch number `index` ≥ 0 (there is no last one)."""
        if index < 0:
            raise IndexError(f"batch {index} does not exist; batches are numbered from 0")
        random = np.random.default_rng([self.seed, index])
        return collate([self._example(random) for _ in range(self.batch_size)], self.special.pad)

    def _example(self, random: np.random.Generator) -> Blanked:
        at = int(random.integers(len(self.stream) - self.seq_len + 1))
        text = self.stream[at : at + self.seq_len]
        shares = np.array(list(self.levels.values()), dtype=float)
        level = str(random.choice(list(self.levels), p=shares / shares.sum()))
        spans = self._spans(level, text, random)
        if not spans:  # one sentence only
            level = "token"
            spans = self._spans(level, text, random)
        order = random.permutation(len(spans)).tolist() if self.shuffle else None
        return blank_out(text, spans, self.special, order=order, mask=self.masks.get(level))

    def _spans(self, level: str, text: Tensor, random: np.random.Generator) -> list[Span]:
        if level == "sentence":
            return sentence_spans(text, self.sentence_ends, random, ratio=self.ratio)
        if level == "document":
            return document_span(len(text), random)
        return token_spans(len(text), random, ratio=self.ratio)


def collate(examples: Sequence[Blanked], pad: int = 0) -> dict[str, Tensor]:
    """Rows of one batch, padded on the right, and the lengths of their parts A."""
    if not examples:
        raise ValueError("a batch needs at least one example")

    def rows(parts: list[Tensor], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    positions = rows([example.positions.T for example in examples], 0).transpose(1, 2)
    return {
        "tokens": rows([example.tokens for example in examples], pad),
        "targets": rows([example.targets for example in examples], IGNORED),
        "positions": positions.contiguous(),
        "context": torch.tensor([example.context for example in examples]),
    }


def _check(text: Tensor, spans: Sequence[Span], order: Sequence[int], special: BlankTokens) -> None:
    """Raise ValueError unless spans lie in the text, in order and apart, and `order` has each."""
    last = -1
    for start, end in spans:
        if not last < start < end <= len(text):
            raise ValueError(
                f"spans {list(spans)} must be (start, end) pairs in order, not empty, with a token "
                f"between two, inside the text's {len(text)} tokens"
            )
        last = end
    if not spans or (last == len(text) and spans[0] == (0, len(text))):
        raise ValueError(f"spans {list(spans)} of {len(text)} tokens: cut something, and not all")
    if sorted(order) != list(range(len(spans))):
        raise ValueError(f"order {list(order)} must name each of the {len(spans)} spans once")
    reserved = {special.mask, special.start, special.end}
    found = reserved & set(text.tolist())
    if len(reserved) < 3 or found:
        raise ValueError(
            f"special tokens {special} must differ from each other and not occur in the text "
            f"(found {sorted(found)}): add them to the tokenizer's vocabulary"
        )
