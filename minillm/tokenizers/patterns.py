r"""Split text into pre-tokens: the pieces no merge may cross.

A byte-level BPE first cuts the text with a regular expression, then merges bytes in each.
The three patterns are those of GPT-2 (Radford et al. 2019), GPT-4's `cl100k_base` and GPT-4o's
`o200k_base`, as published in tiktoken (`tiktoken_ext/openai_public.py`). They need the `regex`
module: the standard `re` knows neither `\p{L}` nor Unicode's own list of white space (its `\s`
also matches U+001C to U+001F, its `\d` is not `\p{N}`).
"""

import re
from collections.abc import Sequence

import regex

# An apostrophe ending, letters, digits, other signs (each with one leading blank), white space.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# Like GPT-2, but digits in groups of at most three, any one sign may lead a word, and line ends
# stay with the signs before them. (tiktoken writes {1,3}+, "without backtracking": the same here,
# but some engines that read our tokenizer.json take that plus for a repetition.)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

# Words also end where lower case turns to upper case; marks (\p{M}) count as letters.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def compile_pattern(pattern: str) -> regex.Pattern:
    """Compile `pattern` so that its matches tile any text: what it leaves out becomes a piece."""
    try:
        compiled = regex.compile(pattern)
    except (regex.error, TypeError, RecursionError) as error:
        raise ValueError(f"split pattern {pattern!r:.80} cannot be compiled: {error}") from None
    if compiled.groups:
        raise ValueError(f"split pattern {pattern!r:.80} has a group: write (?:...) for (...)")
    if compiled.match(""):
        raise ValueError(f"split pattern {pattern!r:.80} matches the empty text: write + for *")
    return regex.compile(rf"(?:{pattern})|(?:(?!{pattern})(?s:.))+")


# None of the three patterns puts a blank behind a visible character into one piece, so a text may
# be cut there without changing its pre-tokens. The cut is cheap and its blocks repeat. (Behind a
# line end it would be wrong: "\n \n" is one pre-token.)
_CUT_AT_BLANKS = {GPT2, CL100K, O200K}
_BLOCKS = re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:[^\S ]\s*)?|\s+")


class Splitter:
    """Cut text into pre-tokens: by the first pattern, the pieces by the second, and so on.

    `blocks` is a coarser cut that can be counted or remembered: splitting block by block with
    `split_block` gives the same pre-tokens.
    """

    def __init__(self, patterns: Sequence[str]):
        self._cuts = [compile_pattern(pattern).findall for pattern in patterns]
        self._at_blanks = len(patterns) == 1 and patterns[0] in _CUT_AT_BLANKS

    def __call__(self, text: str) -> list[str]:
        """Return the pre-tokens of `text`; joined, they are `text`."""
        pieces = [text] if text else []
        for cut in self._cuts:
            pieces = [part for piece in pieces for part in cut(piece)]
        return pieces

    def blocks(self, text: str) -> list[str]:
        """Return `text` in blocks whose pre-tokens do not depend on what surrounds them."""
        return _BLOCKS.findall(text) if self._at_blanks else self(text)

    def split_block(self, block: str) -> list[str]:
        """Return the pre-tokens of one of the `blocks`."""
        return self(block) if self._at_blanks else [block]
