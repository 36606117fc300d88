"""The `normalizer` section of a `tokenizer.json`: what happens to text before it is cut.

Each step is described by an object with a `type`; `compile_normalizer` turns the section into one
function, and refuses what it does not know rather than skipping it.
"""

import base64
import binascii
import unicodedata
from collections.abc import Callable, Mapping

import regex

from minillm.tokenizers.charsmap import CharsMap
from minillm.tokenizers.tokenizer_json import member

Normalizer = Callable[[str], str]


def compile_normalizer(step: dict | None) -> Normalizer:
    """Return the function that a `normalizer` section describes."""
    if step is None:
        return str
    kind = step.get("type") if isinstance(step, Mapping) else None
    if kind == "Sequence":
        steps = [compile_normalizer(inner) for inner in member(step, "normalizers", list)]
        return lambda text: _chain(steps, text)
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return lambda text: unicodedata.normalize(kind, text)
    if kind == "Lowercase":
        return lambda text: "".join(c.lower() for c in text)
    if kind == "Replace":
        return _replace(member(step, "pattern", dict), step.get("content"))
    if kind == "Prepend" and isinstance(step.get("prepend"), str):
        return lambda text: step["prepend"] + text if text else text
    if kind == "Strip":
        sides = step.get("strip_left", True), step.get("strip_right", True)
        return lambda text: _strip(text, *sides)
    if kind == "Precompiled":
        return precompiled(_blob(step.get("precompiled_charsmap")))
    raise ValueError(f"normalizer {step!r:.90} is not known here")


def _chain(steps: list[Normalizer], text: str) -> str:
    for step in steps:
        text = step(text)
    return text


def _replace(pattern: dict, content: object) -> Normalizer:
    if not isinstance(content, str):
        raise ValueError(f"a replacement is {content!r:.60}, not a text")
    if isinstance(literal := pattern.get("String"), str) and literal:
        return lambda text: text.replace(literal, content)
    if not isinstance(pattern.get("Regex"), str):
        raise ValueError(f"pattern {pattern!r:.80} is neither a String nor a Regex")
    try:
        compiled = regex.compile(pattern["Regex"])
    except regex.error as error:
        raise ValueError(f"pattern {pattern!r:.80} cannot be compiled: {error}") from None
    return lambda text: compiled.sub(lambda _: content, text)


def _strip(text: str, left: bool, right: bool) -> str:
    text = regex.sub(r"\A\s+", "", text) if left else text
    return regex.sub(r"\s++\Z", "", text) if right else text


def _blob(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ValueError(f"precompiled_charsmap is {text!r:.60}, not base64") from None


def precompiled(blob: bytes) -> Normalizer:
    """SentencePiece's rules as Hugging Face applies them: character by character.

    Not quite SentencePiece's own way (`charsmap`): a cluster of characters that belong together
    (an extended grapheme) of less than six bytes is tried first and takes the *shortest* rule that
    fits its beginning; otherwise every character is looked up alone.
    """
    if not blob:
        return str
    rules = CharsMap.from_bytes(blob).rules

    def cluster(text: str) -> str:
        if len(text.encode("utf-8")) < 6:
            for n in range(1, len(text) + 1):
                if text[:n] in rules:
                    return rules[text[:n]]
        return "".join(rules.get(c, c) for c in text)

    return lambda text: "".join(map(cluster, regex.findall(r"\X", text)))
