"""The header of a safetensors file, checked entry by entry.

    8 bytes: n, little-endian │ n bytes of JSON: name → {dtype, shape, data_offsets} │ data

`data_offsets` count from the start of the data. The tensors must tile the data: no gap, no overlap,
nothing after the last. (https://github.com/huggingface/safetensors, "Format".)
"""

import json
import math
from pathlib import Path
from typing import Any

# Bits per element.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
LONGEST = 100_000_000  # bytes of header, the format's own limit


def read_header(path: Path) -> dict[str, Any]:
    """The header of `path` as a dict; ValueError naming file and value when anything is off."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, LONGEST):
                raise bad(path, f"its header would have {length} bytes, the file has {size}")
            raw = file.read(length)
    except OSError as error:
        raise bad(path, f"it cannot be read ({error.strerror})") from error
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise bad(path, f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise bad(path, f"its header is {type(header).__name__}, not an object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise bad(path, "its __metadata__ does not map names to strings")
    _check_tiling(path, header, size - 8 - length)
    return header


def bad(path: Path, why: str) -> ValueError:
    """The error of every malformed file."""
    return ValueError(
        f"{path} is not a usable safetensors file: {why}; copy it again or use an earlier one"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _check_tiling(path: Path, header: dict[str, Any], n_bytes: int) -> None:
    spans = sorted(
        (*_span(path, name, entry), name)
        for name, entry in header.items()
        if name != "__metadata__"
    )
    position = 0
    for start, end, name in spans:
        if start != position:
            what = "overlaps the tensor before it" if start < position else "leaves a gap"
            raise bad(path, f"{name} starts at byte {start}, which {what} (ends at {position})")
        position = end
    if position != n_bytes:
        raise bad(path, f"its tensors take {position} bytes, the file has {n_bytes} for them")


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """(start, end) of one tensor, if its type, shape and offsets agree."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise bad(path, f"the entry of {name} is {entry!r:.80}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise bad(path, f"{name} has the unknown dtype {dtype!r:.40}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise bad(path, f"{name} has shape {shape!r:.60} and offsets {offsets!r:.60}")
    start, end = offsets
    wanted = math.prod(shape) * BITS[dtype] // 8
    if end - start != wanted:
        raise bad(path, f"{name}, {dtype} {shape}, needs {wanted} bytes, not {start} to {end}")
    return start, end


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)
