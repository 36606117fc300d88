"""What every tokenizer does: text to ids and back, special tokens, streams, files.

A concrete tokenizer supplies `encode_ordinary`, `split` and the two halves of its file format; the
rest follows from one table, `{id: bytes}`. Decoding joins bytes first and reads UTF-8 second,
because a token of a byte-level tokenizer may hold half a character.
"""

import codecs
import json
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import regex

ERRORS = ("replace", "strict", "ignore", "backslashreplace", "surrogateescape")
LARGEST_ID = 0x10FFFF  # an embedding table has a row for every id up to the largest


class Tokenizer(ABC):
    """Text to token ids and back; `token_bytes` maps every id to the bytes it stands for."""

    def __init__(
        self,
        token_bytes: Mapping[int, bytes],
        special_tokens: Mapping[str, int],
        eos: str | None,
    ):
        if not isinstance(special_tokens, Mapping):
            raise ValueError(f"special_tokens is {special_tokens!r:.60}: give a dict, name to id")
        self.special_tokens = dict(special_tokens)
        self.token_bytes = dict(token_bytes)
        for name, token_id in self.special_tokens.items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"special token {name!r} must be a non-empty string")
            if type(token_id) is not int or not 0 <= token_id <= LARGEST_ID:
                raise ValueError(
                    f"special token {name!r} has id {token_id!r:.40}: give an integer from 0 to "
                    f"{LARGEST_ID}"
                )
            if token_id in token_bytes:
                raise ValueError(
                    f"special token {name!r}: the id {token_id} is taken, choose another"
                )
            self.token_bytes[token_id] = name.encode("utf-8")
        if len(set(self.special_tokens.values())) < len(self.special_tokens):
            raise ValueError(f"two special tokens share an id in {self.special_tokens}")
        if eos is not None and (not isinstance(eos, str) or eos not in self.special_tokens):
            raise ValueError(
                f"eos {eos!r} is not one of the special tokens {[*self.special_tokens]}"
            )
        self.eos = eos

    @property
    def vocab_size(self) -> int:
        """The number of rows an embedding table needs: the largest id plus one."""
        return max(self.token_bytes) + 1

    @property
    def eos_id(self) -> int | None:
        """The id of the end-of-text token, if there is one."""
        return None if self.eos is None else self.special_tokens[self.eos]

    @abstractmethod
    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of `text`, which is taken literally: no special token comes out."""

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """Return the pre-tokens of `text`; joined, they are `text`, or what it is normalized to."""

    def encode(
        self,
        text: str,
        *,
        allowed_special: Collection[str] = frozenset(),
        disallowed_special: Collection[str] = frozenset(),
    ) -> list[int]:
        """Return the ids of `text`.

        A special token's name in the text is ordinary text unless `allowed_special` lists it, so
        what a user types can never become a control token. Names in `disallowed_special` raise
        instead. Either may be the string "all". Lone surrogates are read as U+FFFD.
        """
        require_text(text)
        allowed, forbidden = self._names(allowed_special), self._names(disallowed_special)
        forbidden -= allowed
        text = well_formed(text)
        for name in sorted(forbidden):
            if name in text:
                raise ValueError(
                    f"the text contains the special token {name!r}: list it in allowed_special if "
                    "it is meant, or leave it out of disallowed_special to encode it as text"
                )
        if not allowed:
            return self.encode_ordinary(text)
        longest_first = sorted(allowed, key=len, reverse=True)
        ids, parts = [], regex.split(f"({'|'.join(map(regex.escape, longest_first))})", text)
        for i, part in enumerate(parts):  # every second part is a special token
            ids += [self.special_tokens[part]] if i % 2 else self.encode_ordinary(part)
        return ids

    def _names(self, names: Collection[str]) -> set[str]:
        if isinstance(names, str):
            if names != "all":
                raise ValueError(
                    f"special tokens {names!r:.60}: give a collection of names, or 'all'"
                )
            return set(self.special_tokens)
        try:
            names = set(names)
        except TypeError:
            raise ValueError(
                f"special tokens {names!r:.60}: give a collection of names, or 'all'"
            ) from None
        if unknown := names - set(self.special_tokens):
            raise ValueError(
                f"{sorted(unknown, key=str)} are not special tokens: {[*self.special_tokens]} are"
            )
        return names

    def encode_batch(
        self, texts: Iterable[str], *, allowed_special: Collection[str] = frozenset()
    ) -> list[list[int]]:
        """Return `encode` of each text."""
        if isinstance(texts, str):
            raise ValueError(f"texts is the one string {texts!r:.60}: call encode, or give a list")
        listed = listed_texts(texts)
        return [self.encode(text, allowed_special=allowed_special) for text in listed]

    def pieces(self, ids: Iterable[int]) -> list[bytes]:
        """Return the bytes each id stands for."""
        try:
            ids = list(ids)
            return [self.token_bytes[operator.index(token_id)] for token_id in ids]
        except (KeyError, TypeError):
            bad = ids if not isinstance(ids, list) else next(i for i in ids if not self._has(i))
            raise ValueError(
                f"token id {bad!r:.60} is not in the vocabulary: ids are integers "
                f"from 0 to {self.vocab_size - 1}"
            ) from None

    def _has(self, token_id: object) -> bool:
        try:
            return operator.index(token_id) in self.token_bytes
        except TypeError:  # a tensor of floats has __index__ and refuses
            return False

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text of `ids`; what is not UTF-8 becomes U+FFFD, or raises if "strict"."""
        require_errors(errors)
        return b"".join(self.pieces(ids)).decode("utf-8", errors)

    def decode_batch(self, batch: Iterable[Iterable[int]], errors: str = "replace") -> list[str]:
        """Return `decode` of each sequence of ids."""
        if not isinstance(batch, Iterable):
            raise ValueError(f"batch is {batch!r:.60}: give a list of lists of ids")
        return [self.decode(ids, errors) for ids in batch]

    def decode_stream(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Yield the text of `ids` as it arrives, in whole characters; joined, it is `decode(ids)`.

        A token that ends inside a character yields nothing: its bytes wait for the rest.
        """
        require_errors(errors)
        if not isinstance(ids, Iterable):
            raise ValueError(f"ids is {ids!r:.60}: give ids one after the other, or call decode")
        decoder = codecs.getincrementaldecoder("utf-8")(errors)
        for token_id in ids:
            if text := decoder.decode(self.pieces([token_id])[0]):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) of each pre-token, counted in characters."""
        spans, start, pieces = [], 0, self.split(text)
        if "".join(pieces) != text:
            raise ValueError(
                f"{type(self).__name__} rewrites text before it splits it, so the pre-tokens of "
                f"{text!r:.60} have no places in it: use split"
            )
        for piece in pieces:
            spans.append((start, start + len(piece)))
            start += len(piece)
        return spans

    @abstractmethod
    def to_json(self) -> dict:
        """Return the tokenizer as the content of a Hugging Face `tokenizer.json`."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict) -> "Tokenizer":
        """Return the tokenizer that a `tokenizer.json` describes."""

    file_name = "tokenizer.json"

    def save(self, path: str | os.PathLike) -> None:
        """Write the tokenizer (into a folder: as `file_name`); a crash keeps the old file."""
        path = _file(path, self.file_name)
        if not path.parent.is_dir():
            raise ValueError(f"there is no folder {str(path.parent)!r} to save in: create it first")
        content = self.to_bytes()
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Read what `save` wrote (`file_name`, if `path` is a folder)."""
        path = _file(path, cls.file_name)
        if not path.is_file():
            raise ValueError(f"there is no tokenizer file at {str(path)!r}")
        try:
            return cls.from_bytes(path.read_bytes())
        except RecursionError:
            raise ValueError(f"tokenizer file {str(path)!r} is nested too deep") from None
        except ValueError as error:
            raise ValueError(f"tokenizer file {str(path)!r} cannot be used: {error}") from None

    def to_bytes(self) -> bytes:
        """Return the content of the tokenizer's file: here the JSON of `to_json`."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1).encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tokenizer":
        """Return the tokenizer in a file."""
        return cls.from_json(parse_json(data))


def parse_json(data: bytes) -> dict:
    """Return the object that `data` holds as JSON; no key may stand in it twice."""
    content = json.loads(data, object_pairs_hook=_unique)
    if not isinstance(content, dict):
        raise ValueError(f"it holds {content!r:.80} where an object is expected")
    return content


def well_formed(text: str) -> str:
    """Return `text` with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def require_text(text: object) -> None:
    """Raise ValueError unless `text` is a string."""
    if not isinstance(text, str):
        raise ValueError(f"the text must be a str, got {text!r:.80}; decode bytes to text first")


def listed_texts(texts: str | Iterable[str]) -> Iterable[str]:
    """Return `texts`, or the one string in a list; ValueError for what is neither."""
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise ValueError(f"texts is {texts!r:.60}: give a string, or a list of strings")
    return [texts] if isinstance(texts, str) else texts


def special_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of special tokens to be numbered in order: a list, none twice."""
    if isinstance(names, str):
        raise ValueError(f"special_tokens is the string {names!r:.60}: write [{names!r:.60}]")
    if not isinstance(names, Iterable):
        raise ValueError(f"special_tokens is {names!r:.60}: give a list of names, or ()")
    names = tuple(names)
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"special_tokens lists {twice[0]!r:.60} twice: each needs one id")
    return names


def require_errors(errors: object) -> None:
    """Raise ValueError unless `errors` says what becomes of bytes that are not UTF-8."""
    if errors not in ERRORS:
        raise ValueError(f"errors is {errors!r:.60}: choose one of {', '.join(ERRORS)}")


def _file(path: str | os.PathLike, name: str) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path is {path!r:.60}: give the name of a file or folder")
    return Path(path) / name if Path(path).is_dir() else Path(path)


def _unique(pairs: list[tuple[str, object]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.80} appears twice in one object: keep one")
    return content
