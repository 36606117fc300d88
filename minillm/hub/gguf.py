"""The metadata of a GGUF file: what a model is, and its whole tokenizer.

    "GGUF" │ version: 32 bits │ tensors: 64 │ entries: 64 │ entries │ tensor infos │ tensors

An entry is a key, a type and a value; a text is a 64-bit length and UTF-8; an array is the type of
its elements, their number and the elements (docs/gguf.md in ggml). The weights are not read here.
Numbers are little-endian. Every length is checked against what the file still holds before anything
is read, so a broken or hostile file costs an error, not the memory.
"""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
BOOL, STRING, ARRAY = 7, 8, 9
DEEPEST = 4  # arrays inside arrays


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Return the metadata of a GGUF file: key → number, text, bool or list of them."""
    if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
        raise ValueError(f"there is no GGUF file at {str(path)!r}")
    with Path(path).open("rb") as file:
        reader = _Reader(file, Path(path))
        magic, version = reader.take(4, "the magic"), reader.number(4)
        if magic != MAGIC:
            raise reader.error(f"it begins with {magic!r}, not {MAGIC!r}")
        if version not in VERSIONS:
            hint = "; it is big-endian" if version.to_bytes(4, "little")[:3] == b"\0\0\0" else ""
            raise reader.error(f"its version is {version}{hint}; {VERSIONS} can be read")
        reader.number(10)  # the number of tensors
        metadata: dict[str, Any] = {}
        for _ in range(reader.count(reader.number(10), at_least=13)):
            key = reader.text()
            if key in metadata:
                raise reader.error(f"the key {key!r:.60} appears twice")
            metadata[key] = reader.value(reader.number(4))
    return metadata


class _Reader:
    """Read values one after the other from a file whose end is known."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path
        self.left = os.fstat(file.fileno()).st_size

    def error(self, why: str) -> ValueError:
        return ValueError(
            f"{str(self.path)!r} is not a usable GGUF file: {why}; copy it again or use another"
        )

    def take(self, n: int, what: str) -> bytes:
        if n > self.left:
            raise self.error(f"{what} needs {n} bytes and {self.left} are left")
        self.left -= n
        return self.file.read(n)

    def count(self, n: int, *, at_least: int) -> int:
        """Return `n`, the number of things to come that take `at_least` bytes each."""
        if n * at_least > self.left:
            raise self.error(f"{n} entries cannot fit into the {self.left} bytes that are left")
        return n

    def number(self, kind: int) -> Any:
        layout = _NUMBERS[kind]
        value = struct.unpack(f"<{layout}", self.take(struct.calcsize(layout), "a number"))[0]
        return bool(value) if kind == BOOL else value

    def text(self) -> str:
        data = self.take(self.number(10), "a text")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"the text {data!r:.60} is no UTF-8") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _NUMBERS:
            return self.number(kind)
        if kind == STRING:
            return self.text()
        if kind != ARRAY or depth == DEEPEST:
            raise self.error(f"a value has the type {kind} at depth {depth}")
        inner, n = self.number(4), self.number(10)
        if inner in _NUMBERS:
            layout = _NUMBERS[inner]
            size = struct.calcsize(f"<{layout}")
            data = self.take(self.count(n, at_least=size) * size, "an array")
            values = list(struct.unpack(f"<{n}{layout}", data))
            return [bool(v) for v in values] if inner == BOOL else values
        size = 8 if inner == STRING else 12
        return [self.value(inner, depth + 1) for _ in range(self.count(n, at_least=size))]
