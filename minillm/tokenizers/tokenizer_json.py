"""Byte-level BPE in Hugging Face's `tokenizer.json`: write it, read it, refuse what it cannot mean.

The format writes a byte as a printable character: bytes that have one in Latin-1 as themselves, the
others as U+0100 and up, so a blank is `Ġ` (U+0120). Written files load in the `tokenizers` package.
Read are files whose model is BPE over such characters; special tokens stay out of the ordinary
vocabulary, and post-processors (which add BOS or EOS) are left to the caller.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from minillm.tokenizers.patterns import GPT2

# GPT-2's order of the 256 bytes: those with a printable Latin-1 character, then the others.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
BYTE_ORDER = _PRINTABLE + tuple(byte for byte in range(256) if byte not in _PRINTABLE)

_CHAR_OF_BYTE = {
    b: chr(b if b in _PRINTABLE else 256 + i - len(_PRINTABLE)) for i, b in enumerate(BYTE_ORDER)
}
_BYTE_OF_CHAR = {char: byte for byte, char in _CHAR_OF_BYTE.items()}


def to_visible(token: bytes) -> str:
    """Return a token's bytes in GPT-2's printable alphabet: b" the" becomes "Ġthe"."""
    return "".join(_CHAR_OF_BYTE[byte] for byte in token)


def from_visible(token: str) -> bytes:
    """Return the bytes of a token in GPT-2's printable alphabet."""
    try:
        return bytes(_BYTE_OF_CHAR[char] for char in token)
    except KeyError as error:
        raise ValueError(
            f"token {token!r:.80} has the character {error.args[0]!r}, which stands for no byte: "
            "only byte-level BPE files can be read"
        ) from None


def added_tokens(special_tokens: Mapping[str, int], eos: str | None = None) -> list[dict]:
    """Return the `added_tokens` section; an entry "eos", which others ignore, marks the last token.

    Hugging Face keeps that in another file, `tokenizer_config.json`.
    """
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    ordered = sorted(special_tokens.items(), key=lambda item: item[1])
    entries = [{"id": i, "content": name, **flags} for name, i in ordered]
    return [entry | {"eos": True} if entry["content"] == eos else entry for entry in entries]


BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}


def document(
    model: dict,
    pre_tokenizer: dict,
    decoder: dict,
    specials: Mapping[str, int],
    eos: str | None,
) -> dict:
    """Return a whole `tokenizer.json` around a model.

    The vocabulary lists the special tokens too: the `tokenizers` package would number them anew.
    """
    for name, i in specials.items():
        if model["vocab"].setdefault(name, i) != i:
            raise ValueError(f"special token {name!r} is written like an ordinary token: rename it")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(specials, eos),
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def split_step(pattern: str) -> dict:
    """Return the pre-tokenizer that cuts at every match of `pattern`."""
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def bpe_document(
    ids: Mapping[bytes, int],
    merges: Iterable[tuple[bytes, bytes]] | None,
    patterns: Sequence[str],
    specials: Mapping[str, int],
    whole_pieces: bool,
    eos: str | None,
) -> dict:
    """Return the `tokenizer.json` of a byte-level BPE; without `merges`, of tiktoken's rule."""
    merges = _all_splits(ids) if merges is None else merges
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": whole_pieces,
        "vocab": {to_visible(token): i for token, i in sorted(ids.items(), key=lambda x: x[1])},
        "merges": [[to_visible(left), to_visible(right)] for left, right in merges],
    }
    steps = [*map(split_step, patterns), BYTE_LEVEL]
    steps = {"type": "Sequence", "pretokenizers": steps}
    return document(model, steps, BYTE_LEVEL, specials, eos)


def _all_splits(ids: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield every pair of tokens that makes a token, in the order of that token's id."""
    for token in sorted(ids, key=ids.__getitem__):
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        yield from (pair for pair in pairs if pair[0] in ids and pair[1] in ids)


def bpe_arguments(content: dict) -> dict:
    """Return the arguments of `BPETokenizer` that a parsed `tokenizer.json` describes."""
    model = member(content, "model", dict)
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"the model type is {model['type']!r:.40}; only BPE can be read here")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise ValueError(
                f"the model sets {option} to {model[option]!r:.40}, which is not supported"
            )
    if content.get("normalizer") is not None:
        raise ValueError(
            f"normalizer {content['normalizer']!r:.70} is not supported: it changes text"
        )
    specials = read_special_tokens(content)
    vocab = member(model, "vocab", dict)
    for name, i in specials.items():
        if name in vocab and vocab[name] != i:
            raise ValueError(f"special token {name!r} has two ids, {i} and {vocab[name]!r:.40}")
    ranks = {from_visible(token): i for token, i in vocab.items() if token not in specials}
    return {
        "ranks": ranks,
        "pattern": list(_patterns(member(content, "pre_tokenizer", dict))),
        "special_tokens": specials,
        "merges": [_merge(entry) for entry in member(model, "merges", list)],
        "whole_pieces": bool(model.get("ignore_merges")),
        "eos": read_eos(content),
    }


def member(content: dict, name: str, kind: type) -> dict | list:
    """Return `content[name]`, which must be a `kind`."""
    if not isinstance(content.get(name), kind):
        raise ValueError(f"{name!r} is {content.get(name)!r:.80}, not a {kind.__name__}")
    return content[name]


def read_special_tokens(content: dict) -> dict[str, int]:
    """Return the `added_tokens` section as name → id."""
    specials = {}
    entries = content.get("added_tokens")
    for entry in [] if entries is None else member(content, "added_tokens", list):
        known = entry if isinstance(entry, dict) else {}
        name, i = known.get("content"), known.get("id")
        if not isinstance(name, str) or isinstance(i, bool) or not isinstance(i, int) or i < 0:
            raise ValueError(f"added token {entry!r:.120} needs a text and an id from 0 up")
        if specials.setdefault(name, i) != i:
            raise ValueError(f"added token {name!r} has two ids, {specials[name]} and {i}")
    return specials


def read_eos(content: dict) -> str | None:
    """Return the special token marked as the end of a text, if one is (checked names only)."""
    entries = [entry for entry in content.get("added_tokens") or [] if entry.get("eos")]
    if len(entries) > 1:
        names = [entry["content"] for entry in entries]
        raise ValueError(f"{names!r:.120} are all marked as eos: mark one")
    return entries[0]["content"] if entries else None


def _merge(entry: object) -> tuple[bytes, bytes]:
    pair = entry.split(" ") if isinstance(entry, str) else entry
    if (
        not isinstance(pair, list)
        or [isinstance(part, str) and part != "" for part in pair] != [True] * 2
    ):
        raise ValueError(f"merge {entry!r:.80} is not a pair of tokens")
    return from_visible(pair[0]), from_visible(pair[1])


def _patterns(step: object) -> Iterator[str]:
    """Yield the split patterns of a pre-tokenizer, in order."""
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "Sequence":
        for inner in member(step, "pretokenizers", list):
            yield from _patterns(inner)
    elif kind == "ByteLevel" and not step.get("add_prefix_space"):
        if step.get("use_regex", True):
            yield GPT2
    elif kind == "Digits":
        yield r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
    elif kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        pattern = member(step, "pattern", dict).get("Regex")
        if not isinstance(pattern, str):
            raise ValueError(f"split pattern {step['pattern']!r:.80} is not a regular expression")
        yield pattern
    else:
        raise ValueError(f"pre-tokenizer {step!r:.90} is neither an isolated Split nor ByteLevel")
