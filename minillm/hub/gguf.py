"""GGUF files, read: what a model is, its whole tokenizer, and its weights where they lie.

    "GGUF" │ version: 32 bits │ tensors: 64 │ entries: 64 │ entries │ tensor infos │ 0 … │ tensors

An entry is a key, a type and a value; a text is a 64-bit length and UTF-8; an array is the type of
its elements, their number and the elements. An info is a name, the number of axes, their lengths
(the innermost first), the code of a block format and the place, counted from the first tensor
(docs/gguf.md in ggml). Numbers are little-endian. Every length is checked against what the file
still holds before anything is read, so a broken or hostile file costs an error, not the memory.
"""

import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from jaxtyping import UInt8
from torch import Tensor

from minillm.quantization.gguf_blocks import BY_CODE, BlockFormat, dequantize

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
BOOL = 7
STRING = 8
ARRAY = 9
DEEPEST = 4  # arrays inside arrays
MOST_AXES = 4
ALIGNMENT = 32


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's shape, outermost axis first, its format, and its bytes: `start` to `end`."""

    shape: tuple[int, ...]
    kind: BlockFormat
    start: int
    end: int


class GgufFile(Mapping[str, Tensor]):
    """The tensors of a file by name, each decoded to float32 when it is asked for.

    The file is mapped into memory: bytes that nobody asks for are never read. `metadata` has what
    `read_metadata` returns, `infos` a `TensorInfo` for each name.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        with _opened(path) as (reader, n_tensors):
            self.path, self.metadata = Path(path), reader.entries()
            self.infos = reader.infos(n_tensors, self.metadata)
            size = reader.size
        self._bytes = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)

    def raw(self, name: str) -> UInt8[Tensor, " n"]:
        """The bytes of a tensor as they stand in the file."""
        info = self.infos[name]
        return self._bytes[info.start : info.end]

    def __getitem__(self, name: str) -> Tensor:
        info = self.infos[name]
        return dequantize(self.raw(name), info.kind, info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Return the metadata of a GGUF file: key → number, text, bool or list of them."""
    with _opened(path) as (reader, _):
        return reader.entries()


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple["_Reader", int]]:
    """A reader behind the magic and the version, and the number of tensors."""
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
        yield reader, reader.number(10)


class _Reader:
    """Read values one after the other from a file whose end is known."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path
        self.size = self.left = os.fstat(file.fileno()).st_size

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

    def entries(self) -> dict[str, Any]:
        """All metadata."""
        metadata: dict[str, Any] = {}
        for _ in range(self.count(self.number(10), at_least=13)):
            key = self.text()
            if key in metadata:
                raise self.error(f"the key {key!r:.60} appears twice")
            metadata[key] = self.value(self.number(4))
        return metadata

    def infos(self, n: int, metadata: Mapping[str, Any]) -> dict[str, TensorInfo]:
        """Name → shape, format and place of every tensor; none may reach into another."""
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
            raise self.error(f"its alignment is {alignment!r:.40}, not a multiple of 8")
        found: dict[str, TensorInfo] = {}
        for _ in range(self.count(n, at_least=32)):
            name = self.text()
            if name in found:
                raise self.error(f"the tensor {name!r:.60} appears twice")
            found[name] = self._info(name)
        first = -(-(self.size - self.left) // alignment) * alignment
        placed: dict[str, TensorInfo] = {}
        for name, info in found.items():
            start, end = first + info.start, first + info.end
            if info.start % alignment or end > self.size:
                raise self.error(f"{name} lies at {start} to {end} of {self.size} bytes")
            placed[name] = replace(info, start=start, end=end)
        end = first
        for name, info in sorted(placed.items(), key=lambda item: item[1].start):
            if info.start < end:
                raise self.error(f"{name} at {info.start} overlaps the tensor before it")
            end = info.end
        return placed

    def _info(self, name: str) -> TensorInfo:
        axes = self.number(4)
        if not 1 <= axes <= MOST_AXES:
            raise self.error(f"{name!r:.60} has {axes} axes; 1 to {MOST_AXES} can be")
        shape = tuple(self.number(10) for _ in range(axes))[::-1]
        code, start = self.number(4), self.number(10)
        if code not in BY_CODE:
            known = ", ".join(kind.name for kind in BY_CODE.values())
            raise self.error(f"{name!r:.60} is in format {code}; {known} can be read")
        if math.prod(shape) == 0:
            raise self.error(f"{name!r:.60} has the shape {shape}, which is empty")
        try:
            size = BY_CODE[code].size_of(shape)
        except ValueError as error:
            raise self.error(f"{name!r:.60}: {error}") from None
        return TensorInfo(shape, BY_CODE[code], start, start + size)
