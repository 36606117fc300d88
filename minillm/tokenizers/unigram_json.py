"""The unigram model as Hugging Face's `tokenizer.json` describes it (XLM-R, T5, ALBERT, …).

Made from SentencePiece's models, and nearly the same: scores are added in 64 bits, text is cut at
blanks before the model sees it, and the blank in front is added only where none stands. Reading
such a file as if it were SentencePiece gives other ids for some texts, so it has its own class.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import regex

from minillm.tokenizers.base import Tokenizer, require_text, well_formed
from minillm.tokenizers.merging import Memo
from minillm.tokenizers.normalizers import compile_normalizer
from minillm.tokenizers.scored_bpe import BLANK
from minillm.tokenizers.sentencepiece_model import byte_value
from minillm.tokenizers.tokenizer_json import (
    added_tokens,
    document,
    member,
    read_eos,
    read_special_tokens,
)
from minillm.tokenizers.unigram import Unigram

_SPACE = regex.compile(r"\s+")


class UnigramTokenizer(Tokenizer):
    """Pieces with scores, in the order of their ids; `unknown` is the id for all others.

    `prepend` says where a blank is put in front: "always" (each part that `at_space` cuts), "first"
    (the text's beginning) or "never". `normalizer` is a section of `tokenizer.json`.
    """

    def __init__(
        self,
        vocab: Sequence[tuple[str, float]],
        special_tokens: Mapping[str, int],
        *,
        unknown: int | None,
        normalizer: dict | None = None,
        prepend: str = "always",
        at_blanks: bool = True,
        at_space: bool = False,
        byte_fallback: bool = False,
        eos: str | None = None,
    ):
        if prepend not in ("always", "first", "never"):
            raise ValueError(f"prepend is {prepend!r:.40}: give 'always', 'first' or 'never'")
        if unknown is not None and not 0 <= unknown < len(vocab):
            raise ValueError(f"the unknown piece's id {unknown} is not one of {len(vocab)} pieces")
        self.vocab, self.unknown_id = [(piece, float(score)) for piece, score in vocab], unknown
        self.ids = {piece: i for i, (piece, _) in enumerate(self.vocab)}
        if len(self.ids) < len(self.vocab):
            raise ValueError("two pieces of the vocabulary are the same: give each its own text")
        self.normalizer, self._normalize = normalizer, compile_normalizer(normalizer)
        self.prepend, self.at_blanks, self.at_space = prepend, at_blanks, at_space
        self.byte_fallback = byte_fallback
        tokens = {
            i: piece.replace(BLANK, " ").encode("utf-8")
            for piece, i in self.ids.items()
            if piece not in special_tokens
        }
        if byte_fallback:
            tokens |= {
                i: bytes([byte])
                for piece, i in self.ids.items()
                if (byte := byte_value(piece)) is not None
            }
        super().__init__(tokens, special_tokens, eos)
        self.segmenter = Unigram(dict(self.vocab))
        self._part_ids = Memo(self._encode_part)

    def split(self, text: str) -> list[str]:
        """Return the parts of the normalized `text` that are cut into pieces one by one."""
        require_text(text)
        text = self._normalize(well_formed(text))
        parts = [part for part in _SPACE.split(text) if part] if self.at_space else [text]
        starts = -1 if self.at_space and _SPACE.match(text) else 0  # the part that begins the text
        return [p for i, part in enumerate(parts) for p in self._metaspace(part, i == starts)]

    def _metaspace(self, part: str, first: bool) -> Iterator[str]:
        part = part.replace(" ", BLANK)
        wanted = self.prepend == "always" or (self.prepend == "first" and first)
        if part and wanted and not part.startswith(BLANK):
            part = BLANK + part
        yield from regex.findall(f"{BLANK}?[^{BLANK}]*", part)[:-1] if self.at_blanks else [part]

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of `text` taken literally."""
        return [i for part in self.split(text) for i in self._part_ids[part]]

    def _encode_part(self, part: str) -> tuple[int, ...]:
        ids: list[int] = []
        run = ""  # neighbors that are unknown are one unknown piece
        for piece in [*self.segmenter.best(part), None]:
            if piece is not None and piece not in self.ids:
                run += piece
                continue
            if run:
                ids += self._unknown(run)
                run = ""
            if piece is not None:
                ids.append(self.ids[piece])
        return tuple(ids)

    def _unknown(self, run: str) -> list[int]:
        names = [f"<0x{byte:02X}>" for byte in run.encode("utf-8")]
        if self.byte_fallback and all(name in self.ids for name in names):
            return [self.ids[name] for name in names]
        if self.unknown_id is None:
            raise ValueError(f"{run!r:.60} is not in the vocabulary, which has no unknown piece")
        return [self.unknown_id]

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text of `ids`, without the blank that encoding put in front."""
        text = super().decode(ids, errors)
        return text if self.prepend == "never" else text.removeprefix(" ")

    def decode_stream(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Yield the text of `ids` as it arrives; joined, it is `decode(ids)`."""
        first = self.prepend != "never"
        for text in super().decode_stream(ids, errors):
            shown, first = text.removeprefix(" ") if first else text, False
            if shown:
                yield shown

    def to_json(self) -> dict:
        """Return the content of a `tokenizer.json` with the same ids."""
        space = {
            "type": "Metaspace",
            "replacement": BLANK,
            "prepend_scheme": self.prepend,
            "split": self.at_blanks,
        }
        steps = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]}
        model = {
            "type": "Unigram",
            "unk_id": self.unknown_id,
            "vocab": {},
            "byte_fallback": self.byte_fallback,
        }
        content = document(model, steps if self.at_space else space, space, {}, None)
        content["added_tokens"] = added_tokens(self.special_tokens, self.eos)
        model["vocab"] = [[piece, score] for piece, score in self.vocab]
        return content | {"normalizer": self.normalizer}

    @classmethod
    def from_json(cls, content: dict) -> "UnigramTokenizer":
        """Read the content of a Unigram `tokenizer.json`, ours or Hugging Face's."""
        model = member(content, "model", dict)
        if model.get("type") != "Unigram":
            raise ValueError(f"the model type is {model.get('type')!r:.40}, not 'Unigram'")
        unknown = model.get("unk_id")
        if unknown is not None and type(unknown) is not int:
            raise ValueError(f"unk_id is {unknown!r:.40}, not an integer")
        vocab = [_entry(entry) for entry in member(model, "vocab", list)]
        return cls(
            vocab,
            _special_tokens(content, vocab, unknown),
            unknown=unknown,
            normalizer=content.get("normalizer"),
            byte_fallback=bool(model.get("byte_fallback")),
            eos=read_eos(content),
            **_pre_tokenizer(member(content, "pre_tokenizer", dict)),
        )


def _special_tokens(content: dict, vocab: Sequence, unknown: int | None) -> dict[str, int]:
    special = read_special_tokens(content)
    if unknown is not None and 0 <= unknown < len(vocab):
        special.setdefault(vocab[unknown][0], unknown)
    for name, i in special.items():
        if i < len(vocab) and vocab[i][0] != name:
            raise ValueError(f"special token {name!r} has the id {i} of {vocab[i][0]!r:.60}")
    return special


def _entry(entry: object) -> tuple[str, float]:
    good = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
    if not good or not isinstance(entry[1], float | int) or not math.isfinite(entry[1]):
        raise ValueError(f"vocabulary entry {entry!r:.80} is not a piece and its score")
    return entry[0], float(entry[1])


def _pre_tokenizer(step: dict) -> dict[str, bool | str]:
    """Return the arguments that a Metaspace step, alone or behind WhitespaceSplit, stands for."""
    steps = member(step, "pretokenizers", list) if step.get("type") == "Sequence" else [step]
    kinds = [inner.get("type") if isinstance(inner, dict) else None for inner in steps]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise ValueError(f"pre-tokenizer {step!r:.90} is not Metaspace, nor cut at space before it")
    space = steps[-1]
    if space.get("replacement", BLANK) != BLANK:
        raise ValueError(f"the blank is written {space['replacement']!r:.20}, not {BLANK!r}")
    prepend = space.get("prepend_scheme")
    if prepend is None:
        prepend = "always" if space.get("add_prefix_space", True) else "never"
    return {
        "prepend": prepend,
        "at_blanks": space.get("split", True) is not False,
        "at_space": len(steps) == 2,
    }
