"""WordPiece as BERT uses it (Devlin et al. 2019): clean the text, cut it into words, take pieces.

Words are cut at white space and around punctuation and Chinese characters. In each the longest
piece that fits is taken from the left, again and again; pieces inside a word carry `##`. A word
that cannot be covered is `[UNK]` as a whole, and so is one of more than 100 characters.

Only the vocabulary is needed, no merges. What is lost on the way (case, accents, blanks) does not
come back: decoding gives words with one blank between them.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import regex

from minillm.tokenizers.base import Tokenizer, require_text, well_formed
from minillm.tokenizers.merging import Memo
from minillm.tokenizers.tokenizer_json import document, member, read_eos, read_special_tokens

UNKNOWN = "[UNK]"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # characters

# Blocks of Chinese characters; BERT takes each as a word. Kana and Hangul are not among them.
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def clean(text: str) -> str:
    """Return `text` without control characters, with a blank for every kind of white space."""
    return "".join(map(_CLEANED.__getitem__, text))


def _cleaned(c: str) -> str:
    if c in "\t\n\r":
        return " "
    if c in "\0\ufffd" or unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    return " " if unicodedata.category(c) in ("Zs", "Zl", "Zp") else c


def separate_chinese(text: str) -> str:
    """Return `text` with a blank on both sides of each Chinese character."""
    return "".join(f" {c} " if is_chinese(c) else c for c in text)


def is_chinese(c: str) -> bool:
    """Is `c` in one of the Unicode blocks of Chinese characters that BERT lists?"""
    point = ord(c)
    return point >= 0x3400 and any(first <= point <= last for first, last in _CHINESE)


def strip_accents(text: str) -> str:
    """Return `text` decomposed (NFD) and without its combining marks: "é" becomes "e"."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def lowercase(text: str) -> str:
    """Return `text` in lower case, character by character: no final sigma."""
    return text.lower() if text.isascii() else "".join(c.lower() for c in text)


def is_punctuation(c: str) -> bool:
    """Is `c` punctuation? `$`, `+` and ASCII's other signs count, though Unicode disagrees."""
    if c < "\x80":
        return c in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    return unicodedata.category(c)[0] == "P"


def words(text: str) -> Iterator[str]:
    """Yield the words of cleaned text: at blanks, and each punctuation sign alone."""
    for chunk in _CHUNKS.findall(text):
        start = 0
        for i, c in enumerate(chunk):
            if _PUNCTUATION[c]:
                if start < i:
                    yield chunk[start:i]
                yield c
                start = i + 1
        if start < len(chunk):
            yield chunk[start:]


_CHUNKS = regex.compile(r"\S+")  # str.split() would also cut at U+001C to U+001F
_CLEANED, _PUNCTUATION = Memo(_cleaned), Memo(is_punctuation)


def longest_pieces(word: str, vocab: Mapping[str, int], prefix: str = "##") -> list[str] | None:
    """Return the pieces of `word`, each the longest that fits; None if one place has no piece."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = word[start:end] if start == 0 else prefix + word[start:end]
            if piece in vocab:
                break
        else:
            return None
        pieces.append(piece)
        start = end
    return pieces


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer: `vocab` maps pieces, `##` inside words, to ids; special tokens apart.

    `lower` also strips accents, unless `accents` says otherwise.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        special_tokens: Mapping[str, int],
        *,
        lower: bool = True,
        accents: bool | None = None,
        chinese: bool = True,
        cleaning: bool = True,
        prefix: str = "##",
        longest_word: int = LONGEST_WORD,
        eos: str | None = None,
    ):
        self.ids = dict(vocab)
        for piece, i in self.ids.items():
            if not isinstance(piece, str) or not piece or type(i) is not int or i < 0:
                raise ValueError(f"entry {piece!r:.60}: {i!r:.40} must be text: id from 0")
        if len(set(self.ids.values())) < len(self.ids):
            raise ValueError("two entries of the vocabulary share an id: give each its own")
        if UNKNOWN not in special_tokens:
            raise ValueError(f"{UNKNOWN!r} must be among the special tokens: {[*special_tokens]}")
        if not prefix or longest_word < 1:
            raise ValueError(
                f"prefix {prefix!r:.40} must not be empty, longest_word {longest_word} at least 1"
            )
        self.lower, self.chinese, self.cleaning = lower, chinese, cleaning
        self.keeps_accents = not lower if accents is None else accents
        self._accents = accents
        self.prefix, self.longest_word = prefix, longest_word
        tokens = {i: self._meaning(piece) for piece, i in self.ids.items()}
        super().__init__(tokens, special_tokens, eos)
        self.unknown_id = self.special_tokens[UNKNOWN]
        self._word_ids = Memo(self.encode_word)

    def _meaning(self, piece: str) -> bytes:
        inside = piece.startswith(self.prefix) and piece != self.prefix
        return (piece.removeprefix(self.prefix) if inside else f" {piece}").encode("utf-8")

    def normalize(self, text: str) -> str:
        """Return `text` cleaned, with Chinese characters set apart, accents and case removed."""
        text = clean(text) if self.cleaning else text
        text = separate_chinese(text) if self.chinese else text
        text = text if self.keeps_accents else strip_accents(text)
        return lowercase(text) if self.lower else text

    def split(self, text: str) -> list[str]:
        """Return the words of `text`, normalized."""
        require_text(text)
        return list(words(self.normalize(well_formed(text))))

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of `text` taken literally."""
        return list(chain.from_iterable(map(self._word_ids.__getitem__, self.split(text))))

    def encode_word(self, word: str) -> tuple[int, ...]:
        """Return the ids of one word's pieces, or that of `[UNK]`."""
        pieces = None
        if len(word) <= self.longest_word:
            pieces = longest_pieces(word, self.ids, self.prefix)
        return (self.unknown_id,) if pieces is None else tuple(self.ids[p] for p in pieces)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return words with one blank between them; `##` pieces join the word before them."""
        return "".join(self.decode_stream(ids, errors))

    def decode_stream(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Yield the text of each id; joined, it is `decode(ids)`."""
        special = set(self.special_tokens.values())
        for i, token_id in enumerate(ids):
            text = self.pieces([token_id])[0].decode("utf-8", errors)
            text = f" {text}" if int(token_id) in special else text
            yield text if i else text.removeprefix(" ")

    @classmethod
    def from_vocab(cls, path: str | os.PathLike, **options: bool) -> "WordPieceTokenizer":
        """Read BERT's `vocab.txt`: one piece a line, its id the number of the line."""
        if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
            raise ValueError(f"there is no vocabulary at {str(path)!r}")
        ids: dict[str, int] = {}
        try:
            lines = Path(path).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"vocabulary {str(path)!r} is no UTF-8: {error}") from None
        for i, line in enumerate(lines):
            piece = line.removesuffix("\r")
            if not piece or ids.setdefault(piece, i) != i:
                raise ValueError(
                    f"line {i + 1} of {str(path)!r} is {piece!r:.60}; expected a new piece"
                )
        return cls(*_parted(ids), **options)

    def to_json(self) -> dict:
        """Return the content of a `tokenizer.json` with the same ids."""
        model = {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": self.prefix,
            "max_input_chars_per_word": self.longest_word,
            "vocab": dict(self.ids),
        }
        normalizer = {
            "type": "BertNormalizer",
            "clean_text": self.cleaning,
            "handle_chinese_chars": self.chinese,
            "strip_accents": None if self._accents is None else not self._accents,
            "lowercase": self.lower,
        }
        decoder = {"type": "WordPiece", "prefix": self.prefix, "cleanup": False}
        content = document(
            model, {"type": "BertPreTokenizer"}, decoder, self.special_tokens, self.eos
        )
        return content | {"normalizer": normalizer}

    @classmethod
    def from_json(cls, content: dict) -> "WordPieceTokenizer":
        """Read the content of a WordPiece `tokenizer.json`, ours or Hugging Face's."""
        model = member(content, "model", dict)
        normalizer, step = content.get("normalizer"), content.get("pre_tokenizer")
        if model.get("type") != "WordPiece":
            raise ValueError(f"the model type is {model.get('type')!r:.40}, not 'WordPiece'")
        for name, found, kind in (
            ("normalizer", normalizer, "BertNormalizer"),
            ("pre_tokenizer", step, "BertPreTokenizer"),
        ):
            if not isinstance(found, dict) or found.get("type") != kind:
                raise ValueError(f"the {name} is {found!r:.80}; only {kind} can be read here")
        if model.get("unk_token", UNKNOWN) != UNKNOWN:
            raise ValueError(f"unk_token is {model['unk_token']!r:.40}, not {UNKNOWN!r}")
        vocab = member(model, "vocab", dict)
        named = read_special_tokens(content)
        for name, i in named.items():
            if vocab.get(name, i) != i:
                raise ValueError(f"special token {name!r} has two ids, {i} and {vocab[name]!r:.40}")
        if UNKNOWN in vocab:
            named.setdefault(UNKNOWN, vocab[UNKNOWN])
        stripped = normalizer.get("strip_accents")
        prefix = model.get("continuing_subword_prefix", "##")
        longest = model.get("max_input_chars_per_word", LONGEST_WORD)
        if not isinstance(prefix, str) or type(longest) is not int:
            raise ValueError(f"prefix {prefix!r:.40}, longest word {longest!r:.40}: text, integer")
        return cls(
            {piece: i for piece, i in vocab.items() if piece not in named},
            named,
            lower=bool(normalizer.get("lowercase", True)),
            accents=None if stripped is None else not stripped,
            chinese=bool(normalizer.get("handle_chinese_chars", True)),
            cleaning=bool(normalizer.get("clean_text", True)),
            prefix=prefix,
            longest_word=longest,
            eos=read_eos(content),
        )


def _parted(ids: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Return (ordinary pieces, special tokens): BERT's five names are special."""
    special = {name: ids[name] for name in SPECIALS if name in ids}
    return {piece: i for piece, i in ids.items() if piece not in special}, special
