"""GGUF files, written: metadata and tensors in any of the block formats (see `hub.gguf`)."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from minillm.hub.gguf import ALIGNMENT, ARRAY, BOOL, MAGIC, STRING
from minillm.quantization.gguf_blocks import BlockFormat, quantize

VERSION = 3
UINT32, INT32, FLOAT32, UINT64, INT64 = 4, 5, 6, 10, 11
_PACKED = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?", UINT64: "<Q", INT64: "<q"}


def write_gguf(
    path: str | os.PathLike,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[Tensor, BlockFormat]],
) -> None:
    """Write a GGUF file: entries, and each tensor in its format; a crash keeps an older file.

    A whole number becomes an unsigned 32-bit entry if it fits (64-bit or signed where needed), a
    float a 32-bit one, a list an array of what its elements are.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    head = _head(metadata, tensors)
    try:
        with part.open("wb") as file:
            file.write(head + _padding(len(head)))
            for tensor, kind in tensors.values():
                data = quantize(tensor, kind).numpy().tobytes()
                file.write(data + _padding(len(data)))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _head(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[Tensor, BlockFormat]]) -> bytes:
    """All that stands before the first tensor."""
    if metadata.get("general.alignment", ALIGNMENT) != ALIGNMENT:
        raise ValueError(f"general.alignment must be {ALIGNMENT} here, or left out")
    out = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        out += [_text(key), _entry(key, value)]
    place = 0
    for name, (tensor, kind) in tensors.items():
        shape = tuple(tensor.shape)[::-1]
        out.append(_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        out.append(struct.pack("<IQ", kind.code, place))
        size = kind.size_of(tensor.shape)
        place += size + len(_padding(size))
    return b"".join(out)


def _padding(size: int) -> bytes:
    return bytes(-size % ALIGNMENT)


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _entry(key: str, value: Any) -> bytes:
    """Type and value."""
    if not isinstance(value, list):
        kind = _kind(key, [value])
        return struct.pack("<I", kind) + _packed(kind, value)
    kind = _kind(key, value)
    start = struct.pack("<IIQ", ARRAY, kind, len(value))
    return start + b"".join(_packed(kind, element) for element in value)


def _packed(kind: int, value: Any) -> bytes:
    return _text(value) if kind == STRING else struct.pack(_PACKED[kind], value)


def _kind(key: str, values: list) -> int:
    """The type that holds all of `values`."""
    if all(type(value) is bool for value in values) and values:
        return BOOL
    if all(isinstance(value, str) for value in values):
        return STRING
    if all(type(value) is int for value in values):
        low, high = min(values), max(values)
        ranges = ((UINT32, 0, 32), (INT32, -1 << 31, 31), (UINT64, 0, 64), (INT64, -1 << 63, 63))
        for kind, least, bits in ranges:
            if least <= low and high < 1 << bits:
                return kind
    if all(type(value) in (int, float) for value in values):
        return FLOAT32
    raise ValueError(f"the entry {key!r:.60} is {values!r:.60}: write numbers, texts, or a list")
