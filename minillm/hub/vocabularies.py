"""Tokenizers out of published files: `tokenizer.json`, `.model`, `vocab.txt`, GGUF.

GGUF names the method in `tokenizer.ggml.model` ("gpt2" is byte-level BPE, "llama" SentencePiece's
BPE, "t5" its unigram model, "bert" WordPiece) and the split of a byte-level BPE only by a nickname,
`tokenizer.ggml.pre`; `SPLITS` lists those known here (`llama-vocab.cpp` in llama.cpp has them all).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minillm.hub.gguf import read_metadata
from minillm.tokenizers import (
    CL100K,
    GPT2,
    O200K,
    BPETokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)
from minillm.tokenizers.base import parse_json
from minillm.tokenizers.sentencepiece_model import (
    Kind,
    Method,
    Piece,
    Rules,
    SentencePieceModel,
)
from minillm.tokenizers.tokenizer_json import from_visible

SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2,),
    "gpt-4o": (O200K,),
    "llama-bpe": (CL100K,),
    "smollm": (r"\p{N}", GPT2),
}
_PREFIX = "tokenizer.ggml."


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Return the tokenizer in a file, by its name: `*.json`, `*.model`, `*.gguf`, `vocab.txt`.

    In a folder the first of `tokenizer.json`, `tokenizer.model`, `vocab.txt` is read.
    """
    path = Path(path)
    if path.is_dir():
        names = ("tokenizer.json", "tokenizer.model", "vocab.txt")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise ValueError(f"the folder {str(path)!r} has none of {names}")
        path = found[0]
    if path.suffix == ".gguf":
        return tokenizer_from_gguf(path)
    if path.suffix == ".model":
        return SentencePieceTokenizer.load(path)
    if path.suffix == ".txt":
        return WordPieceTokenizer.from_vocab(path)
    if path.suffix != ".json":
        raise ValueError(
            f"{path.name!r:.80} is no tokenizer file known here: *.json, *.model, *.gguf or a "
            "vocab.txt; a .tiktoken file is read by BPETokenizer.from_tiktoken"
        )
    return _class_of(path).load(path)


def _class_of(path: Path) -> type[Tokenizer]:
    classes = {
        "BPE": BPETokenizer,
        "WordPiece": WordPieceTokenizer,
        "Unigram": UnigramTokenizer,
    }
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"tokenizer file {str(path)!r} cannot be used: {error}") from None
    model = content.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind not in classes:
        raise ValueError(f"{str(path)!r} holds a model of type {kind!r:.40}, not {[*classes]}")
    return classes[kind]


def tokenizer_from_gguf(path: str | os.PathLike) -> Tokenizer:
    """Return the tokenizer inside a GGUF file, for example the asset `smollm2-135m-instruct`."""
    metadata = read_metadata(path)
    entries = {
        key.removeprefix(_PREFIX): value
        for key, value in metadata.items()
        if key.startswith(_PREFIX)
    }
    readers = {"gpt2": _byte_level, "llama": _sentencepiece, "t5": _sentencepiece, "bert": _bert}
    try:
        model = entries.get("model")
        if model not in readers:
            raise ValueError(f"its tokenizer is {model!r:.40}; {[*readers]} can be read")
        return readers[model](entries)
    except ValueError as error:
        raise ValueError(f"the vocabulary of {str(path)!r} cannot be used: {error}") from None


def _list(
    entries: Mapping[str, Any],
    name: str,
    kind: type,
    n: int | None = None,
    default: list | None = None,
) -> list:
    """Return a list entry, whose elements must be a `kind`, `n` of them."""
    values = entries.get(name, default)
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(f"{_PREFIX}{name} is {values!r:.60}, not a list of {kind.__name__}")
    if n is not None and len(values) != n:
        raise ValueError(f"{_PREFIX}{name} has {len(values)} entries for {n} tokens")
    return values


def _kinds(entries: Mapping[str, Any], n: int) -> Sequence[Kind]:
    if "token_type" not in entries:
        return [Kind.NORMAL] * n
    return [Kind(kind) for kind in _list(entries, "token_type", int, n)]


def _named(entries: Mapping[str, Any], tokens: Sequence[str], name: str) -> str | None:
    """Return the token that `name`, such as "eos_token_id", points at."""
    i = entries.get(name)
    return tokens[i] if isinstance(i, int) and 0 <= i < len(tokens) else None


def _byte_level(entries: Mapping[str, Any]) -> BPETokenizer:
    tokens = _list(entries, "tokens", str)
    kinds = _kinds(entries, len(tokens))
    pre = entries.get("pre", "gpt-2")
    if pre not in SPLITS:
        raise ValueError(f"its split is called {pre!r:.40}; known are {[*SPLITS]}")
    special = {
        token: i
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind is not Kind.NORMAL
    }
    ranks = {from_visible(token): i for i, token in enumerate(tokens) if token not in special}
    merges = []
    for entry in _list(entries, "merges", str):
        pair = entry.split(" ")
        if len(pair) != 2:
            raise ValueError(f"merge {entry!r:.60} is not a pair of tokens")
        merges.append((from_visible(pair[0]), from_visible(pair[1])))
    eos = _named(entries, tokens, "eos_token_id")
    return BPETokenizer(
        ranks,
        SPLITS[pre],
        special,
        merges=merges,
        whole_pieces=pre == "llama-bpe",
        drop_unknown=True,
        eos=eos if eos in special else None,
    )


def _sentencepiece(entries: Mapping[str, Any]) -> SentencePieceTokenizer:
    tokens = _list(entries, "tokens", str)
    scores = _list(entries, "scores", float, len(tokens))
    kinds = _kinds(entries, len(tokens))
    charsmap = bytes(b & 0xFF for b in _list(entries, "precompiled_charsmap", int, default=[]))
    unigram = entries["model"] == "t5"
    model = SentencePieceModel(
        pieces=tuple(map(Piece, tokens, scores, kinds)),
        method=Method.UNIGRAM if unigram else Method.BPE,
        rules=Rules(
            charsmap=charsmap,
            dummy_prefix=bool(entries.get("add_space_prefix", True)),
            remove_extra_blanks=bool(entries.get("remove_extra_whitespaces", False)),
        ),
        byte_fallback=Kind.BYTE in kinds,
        eos=_named(entries, tokens, "eos_token_id") or "</s>",
    )
    # Through the file format, whose reader checks what a file may get wrong.
    return SentencePieceTokenizer(SentencePieceModel.from_bytes(model.to_bytes()))


def _bert(entries: Mapping[str, Any]) -> WordPieceTokenizer:
    """GGUF turns `##ing` into `ing` and `play` into `▁play`; names in brackets are special."""
    tokens = _list(entries, "tokens", str)
    kinds = _kinds(entries, len(tokens))
    vocab, special = {}, {}
    for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind in (Kind.CONTROL, Kind.UNKNOWN):
            special[token] = i
        elif token.startswith("▁") and len(token) > 1:
            vocab[token[1:]] = i
        else:
            vocab[f"##{token}"] = i
    return WordPieceTokenizer(vocab, special, lower=True)
