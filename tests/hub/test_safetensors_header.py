"""A header is accepted exactly when the safetensors package accepts it, and refused by name."""

import json

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from minillm.hub.safetensors_header import read_header

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(path, header, data=b"\0" * 8, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(raw) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + raw + data)
    return path


def reference(path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, OSError):
        return False


def test_names_types_and_shapes_are_those_written(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)}
    save_file(tensors, path, metadata={"format": "pt"})
    header = read_header(path)
    assert header["a"]["shape"] == [3, 5]
    assert header["b"]["dtype"] == "BF16"
    assert header["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize("seed", range(20))
def test_every_file_cut_short_is_refused(tmp_path, seed):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(3, 5)}, path)
    raw = path.read_bytes()
    keep = torch.randint(0, len(raw), (), generator=torch.Generator().manual_seed(seed))
    path.write_bytes(raw[: int(keep)])
    with pytest.raises(ValueError, match=r"a\.safetensors is not a usable"):
        read_header(path)


HOSTILE = {
    "length beyond the file": ({"a": F32}, {"length": 1 << 60}, "header would have"),
    "not JSON": (b"{nothing]", {}, "not JSON"),
    "deeply nested": (b"[" * 100_000, {}, "not JSON"),
    "a list": ([1, 2], {}, "not an object"),
    "a name twice": (b'{"a":{},"a":{}}', {}, "twice"),
    "unknown dtype": ({"a": {**F32, "dtype": "F31"}}, {}, "unknown dtype"),
    "negative shape": ({"a": {**F32, "shape": [-2]}}, {}, "shape"),
    "absurd shape": ({"a": {**F32, "shape": [1 << 62, 1 << 62]}}, {}, "needs"),
    "offsets beyond the data": ({"a": {**F32, "shape": [4], "data_offsets": [0, 16]}}, {}, "take"),
    "backward offsets": ({"a": {**F32, "data_offsets": [8, 0]}}, {}, "needs"),
    "overlap": ({"a": F32, "b": F32}, {}, "overlaps"),
    "gap": ({"a": F32, "b": {**F32, "data_offsets": [16, 24]}}, {"data": b"\0" * 24}, "gap"),
    "data left over": ({"a": F32}, {"data": b"\0" * 9}, "the file has 9"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header_is_refused_by_us_and_by_the_reference(tmp_path, name):
    header, options, message = HOSTILE[name]
    path = file_of(tmp_path / "a.safetensors", header, **options)
    with pytest.raises(ValueError, match=message):
        read_header(path)
    assert not reference(path)


def test_a_good_header_is_accepted_by_both(tmp_path):
    path = file_of(tmp_path / "a.safetensors", {"a": F32})
    assert read_header(path) == {"a": F32}
    assert reference(path)
