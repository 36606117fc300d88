"""SentencePiece's conventions around a subword model (Kudo and Richardson 2018).

Text is normalized by rules that come with the model; blanks become a visible character, `▁`, and
one is put in front; then the whole text, not its words, is cut into pieces, by BPE or by the
unigram model. A character that no piece covers becomes `<unk>`, or, with byte fallback, the pieces
`<0x00>` to `<0xFF>` of its bytes. The same `.model` file gives the same ids here and there.
"""

import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from minillm.tokenizers.base import Tokenizer, require_text, well_formed
from minillm.tokenizers.charsmap import CharsMap
from minillm.tokenizers.scored_bpe import BLANK, ScoredBPE
from minillm.tokenizers.sentencepiece_model import (
    Kind,
    Method,
    Rules,
    SentencePieceModel,
    byte_value,
    specials,
)
from minillm.tokenizers.unigram import Unigram


class Normalizer:
    """Apply the rules of a model to a text; `whole` pieces are left as they are."""

    def __init__(self, rules: Rules, whole: Iterable[str] = (), *, blank_as_suffix: bool = False):
        self.rules, self.blank_as_suffix = rules, blank_as_suffix
        table = CharsMap.from_bytes(rules.charsmap).rules if rules.charsmap else {}
        self.whole = tuple(sorted(whole, key=len, reverse=True))
        self._map = CharsMap(table)
        self._blank = BLANK if rules.escape_blanks else " "

    def __call__(self, text: str) -> str:
        """Return `text` as the model's pieces see it."""
        steps, rules = list(self._steps(text)), self.rules
        if rules.remove_extra_blanks:
            start = next((i for i, step in enumerate(steps) if step != " "), len(steps))
            steps = steps[start:]
        if not steps:
            return ""
        out, after_blank = [], rules.remove_extra_blanks
        for step in steps:
            step = step.lstrip(" ") if after_blank else step
            if step:
                out.append(step)
                after_blank = rules.remove_extra_blanks and step.endswith(" ")
        text = "".join(out).replace(" ", self._blank)
        if rules.dummy_prefix and not self.blank_as_suffix:
            text = self._blank + text
        if rules.remove_extra_blanks:
            text = text.rstrip(self._blank)
        if rules.dummy_prefix and self.blank_as_suffix:
            text += self._blank
        return text

    def _steps(self, text: str) -> Iterator[str]:
        if not self.whole:
            yield from self._map.steps(text)
            return
        i = 0
        while i < len(text):
            found = next((piece for piece in self.whole if text.startswith(piece, i)), None)
            source = found or self._map.longest(text, i)
            yield found or self._map.rules.get(source, source)
            i += len(source)


class SentencePieceTokenizer(Tokenizer):
    """The tokenizer in a SentencePiece `.model`; `segmenter` is a `ScoredBPE` or a `Unigram`."""

    file_name = "tokenizer.model"

    def __init__(self, model: SentencePieceModel):
        if model.method not in (Method.UNIGRAM, Method.BPE):
            raise ValueError(
                f"the model's method is {model.method.name}; only UNIGRAM and BPE can be read"
            )
        self.model, controls = model, dict(specials(model.pieces))
        kinds = {kind: {p.text: p.score for p in model.pieces if p.kind is kind} for kind in Kind}
        self.ids = {piece.text: i for i, piece in enumerate(model.pieces)}
        self.byte_ids = {
            byte_value(piece.text): i
            for i, piece in enumerate(model.pieces)
            if piece.kind is Kind.BYTE
        }
        self._ordinary = {
            piece.text: i
            for i, piece in enumerate(model.pieces)
            if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED, Kind.UNUSED)
        }
        unknown = next((i for i, p in enumerate(model.pieces) if p.kind is Kind.UNKNOWN), None)
        self.unknown_id, self._controls = unknown, set(controls.values()) - {unknown}
        token_bytes = {
            i: _meaning(piece.text, piece.kind)
            for i, piece in enumerate(model.pieces)
            if piece.text not in controls
        }
        super().__init__(token_bytes, controls, model.eos if model.eos in controls else None)
        whole = kinds[Kind.USER_DEFINED]
        self.normalize = Normalizer(model.rules, whole, blank_as_suffix=model.blank_as_suffix)
        scores = kinds[Kind.NORMAL] | whole
        self.segmenter: Unigram | ScoredBPE
        if model.method is Method.UNIGRAM:
            self.segmenter = Unigram(scores, whole=[*whole], precision="f")
        else:
            unused = kinds[Kind.UNUSED]
            self.segmenter = ScoredBPE(scores | unused, whole=whole, unused=unused)

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of `text` taken literally."""
        require_text(text)
        return self.piece_ids(self.segmenter.best(self.normalize(well_formed(text))))

    def piece_ids(self, pieces: Iterable[str]) -> list[int]:
        """Return the ids of `pieces`; those of unknown ones' bytes, or one `<unk>` for a run."""
        ids: list[int] = []
        for piece in pieces:
            if (known := self._ordinary.get(piece)) is not None:
                ids.append(known)
            elif self.model.byte_fallback:
                ids += [self.byte_ids[byte] for byte in piece.encode("utf-8")]
            elif not ids or ids[-1] != self.unknown_id:
                ids.append(self.unknown_id)
        return ids

    def split(self, text: str) -> list[str]:
        """Return the normalized text, which is cut nowhere before the pieces are looked for."""
        require_text(text)
        normalized = self.normalize(well_formed(text))
        return [normalized] if normalized else []

    def n_best(self, text: str, n: int) -> list[tuple[list[int], float]]:
        """Return the ids of the `n` most probable segmentations with their log-probabilities."""
        paths = self._unigram("n_best").n_best(self.normalize(well_formed(text)), n)
        return [(self.piece_ids(pieces), score) for pieces, score in paths]

    def sample(self, text: str, *, alpha: float | int, rng: random.Random) -> list[int]:
        """Return the ids of a random segmentation of `text`.

        Unigram: with probability ∝ p^α (subword regularization). BPE: each merge is left out with
        probability α (BPE-dropout).
        """
        require_text(text)
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha is {alpha}: give a number from 0 up")
        normalized = self.normalize(well_formed(text))
        return self.piece_ids(self.segmenter.sample(normalized, alpha=alpha, rng=rng))

    def _unigram(self, what: str) -> Unigram:
        if not isinstance(self.segmenter, Unigram):
            raise ValueError(f"{what} needs probabilities: the model's method is BPE, not UNIGRAM")
        return self.segmenter

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text of `ids` as SentencePiece does.

        Control pieces are silent, `<unk>` is `⁇` between blanks, the blank put in front is taken
        away, and each byte that is part of no character is U+FFFD (or raises if "strict").
        """
        return "".join(self.decode_stream(ids, errors))

    def decode_stream(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Yield the text of `ids` in whole characters as it arrives; joined: `decode(ids)`."""
        rules, started, waiting = self.model.rules, False, b""
        strip = rules.dummy_prefix or rules.remove_extra_blanks
        for token_id in ids:
            token = self.pieces([token_id])[0]
            if int(token_id) in self.byte_ids.values():
                text, waiting = _characters(waiting + token, errors, final=False)
                started = started or text != ""
            else:
                text, waiting = _characters(waiting, errors, final=True)
                started = started or text != ""
                rest, blank = self._text(int(token_id), token, strip and not started)
                text, started = text + rest, started or rest != "" or blank
            if text:
                yield text
        text, _ = _characters(waiting, errors, final=True)
        if text:
            yield text

    def _text(self, token_id: int, token: bytes, strip: bool) -> tuple[str, bool]:
        """Return what a piece adds to the text, and whether it held the blank put in front."""
        if token_id in self._controls:
            return "", False
        if token_id == self.unknown_id:
            return self.model.unknown_surface, False
        text = token.decode("utf-8")
        if strip and text.startswith(" "):
            return text[1:], not self.model.rules.remove_extra_blanks
        return text, False

    def to_bytes(self) -> bytes:
        """Return the `.model` file."""
        return self.model.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SentencePieceTokenizer":
        """Read a `.model` file."""
        return cls(SentencePieceModel.from_bytes(data))

    @classmethod
    def from_model(cls, path: str | os.PathLike) -> "SentencePieceTokenizer":
        """Read a SentencePiece `.model` file, for example the asset `mistral-spm`."""
        if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
            raise ValueError(f"there is no SentencePiece model at {str(path)!r}")
        return cls.load(path)

    def to_json(self) -> dict:
        """Raise ValueError: this tokenizer's file is a `.model`."""
        raise ValueError("a SentencePiece tokenizer is written as a .model file: call save")

    @classmethod
    def from_json(cls, content: dict) -> "SentencePieceTokenizer":
        """Raise ValueError: read a `tokenizer.json` as `UnigramTokenizer`."""
        raise ValueError("a SentencePiece tokenizer is read from a .model file, not from JSON")


def _meaning(text: str, kind: Kind) -> bytes:
    if kind is Kind.BYTE:
        return bytes([byte_value(text)])
    return text.replace(BLANK, " ").encode("utf-8")


def _characters(data: bytes, errors: str, *, final: bool) -> tuple[str, bytes]:
    """Return the characters that `data` begins with, and the bytes that may still become one.

    A byte that cannot belong to a character is one U+FFFD, as in SentencePiece. (Python's own
    "replace" puts a single U+FFFD for a character that breaks off after two or three bytes.)
    """
    text = ""
    while data:
        size = next((n for n in range(1, 5) if _is_character(data[:n])), 0)
        if size == 0 and not final and _may_grow(data):
            break
        if size == 0:
            if errors != "replace":
                data.decode("utf-8", errors="strict")
            text, data = text + "\ufffd", data[1:]
        else:
            text, data = text + data[:size].decode("utf-8"), data[size:]
    return text, data


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


def _may_grow(data: bytes) -> bool:
    """Is `data` the beginning of a character that is not complete?"""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start == 0
    return False
