"""SentencePiece's normalization rules, "precompiled charsmap": longest match first, by table.

    4 bytes: n, little-endian │ n bytes: a double-array trie of 32-bit units │ replacements

The trie maps UTF-8 strings to places in the replacements, each of which ends with a zero byte. Bits
of a unit: 0-7 label, 8 "a value follows", 9 scale of the offset, 10-30 offset; in a leaf, bit 31
is set and the others are the value (Darts-clone, S. Yata; `normalizer.cc` in SentencePiece).
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping

_LEAF = 1 << 31
LONGEST_KEY = 128  # bytes; the rules of NFKC take at most 20 or so
MOST_NODES = 2_000_000


class CharsMap:
    """Replace text by rules, the longest that fits at each place; no rule leaves a character."""

    def __init__(self, rules: Mapping[str, str]):
        if "" in rules:
            raise ValueError("a normalization rule for the empty text fits everywhere: drop it")
        self.rules = dict(rules)
        lengths = defaultdict(set)
        for source in self.rules:
            lengths[source[0]].add(len(source))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def __call__(self, text: str) -> str:
        """Return `text` with every rule applied."""
        return "".join(self.steps(text))

    def steps(self, text: str) -> Iterator[str]:
        """Yield what each rule, or each character without one, becomes."""
        i, rules = 0, self.rules
        while i < len(text):
            source = self.longest(text, i)
            yield rules.get(source, source)
            i += len(source)

    def longest(self, text: str, i: int) -> str:
        """Return the longest text from `i` on that has a rule, or one character."""
        for n in self._lengths.get(text[i], ()):
            if (source := text[i : i + n]) in self.rules:
                return source
        return text[i]

    @classmethod
    def from_bytes(cls, blob: bytes) -> "CharsMap":
        """Read a precompiled charsmap; ValueError if it is none."""
        size = int.from_bytes(blob[:4], "little")
        if len(blob) < 8 or size % 4 or not 4 <= size <= len(blob) - 4:
            raise ValueError(
                f"the normalization rules are {len(blob)} bytes with a trie of {size}: not a "
                "precompiled charsmap, or cut off"
            )
        units = array("I", blob[4 : 4 + size])
        if array("H", [1]).tobytes() != b"\x01\x00":
            units.byteswap()
        texts, rules = blob[4 + size :], {}
        for source, place in _entries(units):
            end = texts.find(b"\0", place)
            if end < 0:
                raise ValueError(f"the normalization rule of {source!r:.40} points past the end")
            try:
                rules[source.decode("utf-8")] = texts[place:end].decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"the normalization rule of {source!r:.40} is no UTF-8") from None
        return cls(rules)


def _entries(units: array) -> Iterator[tuple[bytes, int]]:
    """Yield (key, value) of a double-array trie.

    A child with label c of a node with offset b stands at b ^ c: so the place and the label of a
    unit tell its parent's offset, and sorting units by that gives every node's children. (Keys that
    end alike may share nodes: a broken file could make them a circle.)
    """
    children = defaultdict(list)
    for place, unit in enumerate(units):
        if place and not unit & _LEAF:
            children[place ^ (unit & 0xFF)].append((unit & 0xFF, place))
    todo, seen = [(b"", 0)], 0
    while todo:
        key, place = todo.pop()
        seen += 1
        if len(key) > LONGEST_KEY or seen > MOST_NODES:
            raise ValueError(
                f"the trie of the normalization rules has no end: {seen} nodes, one of them "
                f"{len(key)} bytes deep"
            )
        unit = units[place]
        base = place ^ ((unit >> 10) << ((unit & 0x200) >> 6))
        if unit & 0x100:
            if base >= len(units):
                raise ValueError(f"the normalization rule of {key!r:.40} points outside the trie")
            yield key, units[base] & ~_LEAF
        todo += [(key + bytes([label]), child) for label, child in children.get(base, ())]
