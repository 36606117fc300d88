"""The tokenizers that need no training algorithm: characters, words, bytes.

They mark the ends of a scale. Bytes need 256 ids for every text there is and give long sequences;
words give short sequences and meet words they have never seen; characters lie between.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from minillm.tokenizers.base import (
    Tokenizer,
    listed_texts,
    require_text,
    special_names,
    well_formed,
)
from minillm.tokenizers.patterns import compile_pattern
from minillm.tokenizers.tokenizer_json import (
    BYTE_LEVEL,
    document,
    from_visible,
    member,
    read_eos,
    read_special_tokens,
    split_step,
    to_visible,
)

UNKNOWN = "<unk>"


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: id i is byte i, special tokens follow from 256."""

    def __init__(self, special_tokens: Mapping[str, int] | None = None, *, eos: str | None = None):
        super().__init__({i: bytes([i]) for i in range(256)}, special_tokens or {}, eos)

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the bytes of `text`."""
        require_text(text)
        return list(text.encode("utf-8"))

    def split(self, text: str) -> list[str]:
        """Return the characters of `text`."""
        require_text(text)
        return list(text)

    def to_json(self) -> dict:
        """Return a `tokenizer.json` with 256 tokens and no merges."""
        vocab = {to_visible(bytes([i])): i for i in range(256)}
        model = {"type": "BPE", "vocab": vocab, "merges": []}
        return document(model, BYTE_LEVEL, BYTE_LEVEL, self.special_tokens, self.eos)

    @classmethod
    def from_json(cls, content: dict) -> "ByteTokenizer":
        """Read what `to_json` wrote."""
        specials, model = read_special_tokens(content), member(content, "model", dict)
        vocab = member(model, "vocab", dict)
        ids = {from_visible(token): i for token, i in vocab.items() if token not in specials}
        if ids != {bytes([i]): i for i in range(256)}:
            raise ValueError("the vocabulary is not the 256 bytes: read it as a BPETokenizer")
        return cls(specials, eos=read_eos(content))


class TableTokenizer(Tokenizer):
    """Cut text with `pattern`, look every piece up in `vocab`; what is not there becomes `<unk>`.

    Without `<unk>` among the special tokens an unknown piece raises an error.
    """

    pattern: str

    def __init__(
        self,
        vocab: Mapping[str, int],
        special_tokens: Mapping[str, int] | None = None,
        *,
        eos: str | None = None,
    ):
        if not isinstance(vocab, Mapping):
            raise ValueError(f"vocab is {vocab!r:.60}: give a dict, text to id (or call from_text)")
        self.ids = dict(vocab)
        for piece, i in self.ids.items():
            if not isinstance(piece, str) or type(i) is not int or i < 0:
                raise ValueError(f"entry {piece!r:.60}: {i!r:.40} must be text: id from 0")
        if len(set(self.ids.values())) < len(self.ids):
            raise ValueError("two entries of the vocabulary share an id: give each its own")
        tokens = {i: piece.encode("utf-8") for piece, i in self.ids.items()}
        super().__init__(tokens, special_tokens or {}, eos)
        self._pieces = compile_pattern(self.pattern).findall

    @classmethod
    def from_text(
        cls,
        texts: str | Iterable[str],
        *,
        max_entries: int | None = None,
        special_tokens: Iterable[str] = (UNKNOWN,),
        eos: str | None = None,
    ) -> "TableTokenizer":
        """Build the vocabulary from `texts`: most frequent pieces first, ties in text order."""
        if max_entries is not None and (type(max_entries) is not int or max_entries < 1):
            raise ValueError(f"max_entries is {max_entries!r:.60}: give 1 or more, or None for all")
        split, counts = compile_pattern(cls.pattern).findall, Counter()
        for text in listed_texts(texts):
            require_text(text)
            counts.update(split(well_formed(text)))
        ordered = sorted(counts, key=lambda piece: (-counts[piece], piece))[:max_entries]
        names = special_names(special_tokens)
        return cls(
            {piece: i for i, piece in enumerate(ordered)},
            {name: len(ordered) + i for i, name in enumerate(names)},
            eos=eos,
        )

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the id of every piece of `text`."""
        unknown = self.special_tokens.get(UNKNOWN)
        ids = [self.ids.get(piece, unknown) for piece in self.split(text)]
        if None in ids:
            piece = self.split(text)[ids.index(None)]
            raise ValueError(
                f"{piece!r:.60} is not in the vocabulary: add {UNKNOWN!r} to the specials"
            )
        return ids

    def split(self, text: str) -> list[str]:
        """Return the pieces of `text`; joined, they are `text`."""
        require_text(text)
        return self._pieces(text)

    def to_json(self) -> dict:
        """Return a `tokenizer.json` with a WordLevel model."""
        model = {"type": "WordLevel", "vocab": dict(self.ids), "unk_token": UNKNOWN}
        split = split_step(self.pattern)
        return document(model, split, {"type": "Fuse"}, self.special_tokens, self.eos)

    @classmethod
    def from_json(cls, content: dict) -> "TableTokenizer":
        """Read what `to_json` wrote."""
        specials, model = read_special_tokens(content), member(content, "model", dict)
        step = member(content, "pre_tokenizer", dict)
        if model.get("type") != "WordLevel" or step.get("pattern") != {"Regex": cls.pattern}:
            raise ValueError(f"not a {cls.__name__}: {model.get('type')!r:.40}, {step!r:.80}")
        vocab = member(model, "vocab", dict)
        ordinary = {piece: i for piece, i in vocab.items() if piece not in specials}
        return cls(ordinary, specials, eos=read_eos(content))


class CharTokenizer(TableTokenizer):
    """One token for each character."""

    pattern = r"[\s\S]"


class WordTokenizer(TableTokenizer):
    """One token for each word, other sign and run of white space, so that decoding is exact."""

    pattern = r"\w+|[^\w\s]|\s+"
