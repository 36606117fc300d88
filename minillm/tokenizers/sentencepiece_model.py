"""SentencePiece's `.model` file, in and out: pieces with scores, and how text is prepared.

The file is a protocol buffer, `ModelProto` in `sentencepiece_model.proto`; the numbers of its
fields are below. What only the trainer needs (`trainer_spec` has some forty fields) is left out.
"""

import enum
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from minillm.tokenizers.protobuf import fields, write_field

NULL_PIECE = "<null>"
LONGEST_PIECE = 8000  # bytes, SentencePiece's own limit


class Kind(enum.IntEnum):
    """What a piece is (`SentencePiece.Type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Method(enum.IntEnum):
    """How text is cut into pieces (`TrainerSpec.ModelType`)."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place in the list."""

    text: str
    score: float = 0.0
    kind: Kind = Kind.NORMAL


@dataclass(frozen=True)
class Rules:
    """How text is prepared (`NormalizerSpec`)."""

    charsmap: bytes = b""
    dummy_prefix: bool = True
    remove_extra_blanks: bool = True
    escape_blanks: bool = True
    name: str = ""


@dataclass(frozen=True)
class SentencePieceModel:
    """The content of a `.model` file."""

    pieces: tuple[Piece, ...]
    method: Method
    rules: Rules = field(default_factory=Rules)
    byte_fallback: bool = False
    unknown_surface: str = " \u2047 "
    eos: str = "</s>"
    blank_as_suffix: bool = False

    def to_bytes(self) -> bytes:
        """Return the model as a file that SentencePiece reads."""
        kinds = {piece.kind: i for i, piece in reversed([*enumerate(self.pieces)])}
        trainer = [(3, int(self.method)), (4, len(self.pieces)), (24, self.blank_as_suffix)]
        trainer += [(35, self.byte_fallback), (40, kinds.get(Kind.UNKNOWN, 0))]
        trainer += [(44, self.unknown_surface), (47, self.eos)]
        texts = [piece.text for piece in self.pieces]
        trainer += [(41, _place(texts, "<s>")), (42, _place(texts, self.eos))]
        trainer += [(43, _place(texts, "<pad>"))]
        rules = self.rules
        spec = [(1, rules.name or "identity"), (2, rules.charsmap), (3, rules.dummy_prefix)]
        spec += [(4, rules.remove_extra_blanks), (5, rules.escape_blanks)]
        pieces = [[(1, p.text), (2, float(p.score)), (3, int(p.kind))] for p in self.pieces]
        return b"".join(
            write_field(number, b"".join(write_field(*entry) for entry in message))
            for number, message in [*((1, piece) for piece in pieces), (2, trainer), (3, spec)]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "SentencePieceModel":
        """Read a `.model` file; ValueError if it is none, is cut off or contradicts itself."""
        pieces, trainer, rules = [], {}, {}
        for number, value in fields(data):
            if number == 1:
                pieces.append(_piece(len(pieces), value))
            elif number == 2:
                trainer = dict(fields(_message(value, "trainer_spec")))
            elif number == 3:
                rules = dict(fields(_message(value, "normalizer_spec")))
            elif number == 5 and dict(fields(_message(value, "denormalizer_spec"))).get(2):
                raise ValueError("the model rewrites text when it decodes; that is not supported")
        if not pieces or not trainer:
            raise ValueError("it has no pieces or no trainer_spec: not a SentencePiece model")
        return cls(
            pieces=_checked(tuple(pieces), bool(trainer.get(35, 0))),
            method=_enum(Method, trainer.get(3, 1), "model_type"),
            rules=Rules(
                charsmap=_message(rules.get(2, b""), "precompiled_charsmap"),
                dummy_prefix=bool(rules.get(3, 1)),
                remove_extra_blanks=bool(rules.get(4, 1)),
                escape_blanks=bool(rules.get(5, 1)),
                name=_text(rules.get(1, b""), "the normalizer's name"),
            ),
            byte_fallback=bool(trainer.get(35, 0)),
            unknown_surface=_text(trainer.get(44, " \u2047 ".encode()), "unk_surface"),
            eos=_text(trainer.get(47, b"</s>"), "eos_piece"),
            blank_as_suffix=bool(trainer.get(24, 0)),
        )


def byte_value(piece: str) -> int | None:
    """Return 65 for "<0x41>", None for what is no byte piece."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        digits = piece[3:5]
        if all(digit in "0123456789ABCDEF" for digit in digits):
            return int(digits, 16)
    return None


def _place(texts: list[str], text: str) -> int:
    return texts.index(text) if text in texts else -1


def _piece(i: int, value: int | bytes) -> Piece:
    entry = dict(fields(_message(value, f"piece {i}")))
    text = _text(entry.get(1, b""), f"piece {i}")
    score = entry.get(2, bytes(4))
    if not isinstance(score, bytes) or len(score) != 4:
        raise ValueError(f"the score of piece {i} ({text!r:.40}) is not a 32-bit float")
    return Piece(text, struct.unpack("<f", score)[0], _enum(Kind, entry.get(3, 1), f"piece {i}"))


def _checked(pieces: tuple[Piece, ...], byte_fallback: bool) -> tuple[Piece, ...]:
    """Return the pieces if they make a vocabulary."""
    seen: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        size = len(piece.text.encode("utf-8"))
        if not 0 < size < LONGEST_PIECE or "\0" in piece.text or not math.isfinite(piece.score):
            raise ValueError(
                f"piece {i} is {piece.text!r:.40} with score {piece.score}: a piece is a text of 1 "
                f"to {LONGEST_PIECE - 1} bytes without a zero byte, with a finite score"
            )
        if piece.kind is Kind.UNUSED and piece.text == NULL_PIECE:
            continue
        if seen.setdefault(piece.text, i) != i:
            raise ValueError(f"pieces {seen[piece.text]} and {i} are both {piece.text!r:.40}")
    unknown = sum(piece.kind is Kind.UNKNOWN for piece in pieces)
    if unknown > 1 or (unknown == 0 and not byte_fallback):
        raise ValueError(f"{unknown} pieces are of the kind UNKNOWN: exactly one must be")
    found = [byte_value(piece.text) for piece in pieces if piece.kind is Kind.BYTE]
    if sorted(-1 if b is None else b for b in found) != [*range(256)] * byte_fallback:
        raise ValueError(
            f"byte fallback is {'on' if byte_fallback else 'off'} and {len(found)} pieces are "
            "bytes: it needs <0x00> to <0xFF>, each once, and otherwise none"
        )
    return pieces


def _message(value: int | bytes, what: str) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"{what} is the number {value}, not a message: no SentencePiece model")
    return value


def _text(value: int | bytes, what: str) -> str:
    try:
        return _message(value, what).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{what} is {value!r:.60}, which is no UTF-8") from None


def _enum(kind: type[enum.IntEnum], value: int | bytes, what: str) -> enum.IntEnum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(f"{member.value} ({member.name})" for member in kind)
        raise ValueError(f"{what} has type {value!r:.20}; known are {known}") from None


def specials(pieces: tuple[Piece, ...]) -> Iterator[tuple[str, int]]:
    """Yield (text, id) of the pieces that stand for no text: control and unknown."""
    for i, piece in enumerate(pieces):
        if piece.kind in (Kind.CONTROL, Kind.UNKNOWN):
            yield piece.text, i
