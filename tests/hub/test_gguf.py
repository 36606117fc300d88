import struct

import gguf
import numpy
import pytest

from minillm import assets
from minillm.hub.gguf import read_metadata


@pytest.fixture(scope="module")
def path():
    return assets.fetch("smollm2-135m-instruct")


@pytest.fixture
def small(tmp_path):
    """A file with a value of every kind, written by the `gguf` package."""
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -7)
    writer.add_uint16("u16", 65000)
    writer.add_int16("i16", -30000)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -5)
    writer.add_uint64("u64", 1 << 40)
    writer.add_int64("i64", -(1 << 40))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "naïve 中文")
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("texts", ["a", "", "ß"])
    writer.add_array("flags", [True, False])
    writer.add_tensor("weight", numpy.ones((2, 3), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_entry_of_a_real_file(path):
    ours, theirs = read_metadata(path), gguf.GGUFReader(path)
    names = [name for name in theirs.fields if not name.startswith("GGUF.")]
    assert list(ours) == names and len(names) == 33
    for name in names:
        assert ours[name] == theirs.get_field(name).contents(), name


def test_every_kind_of_value(small):
    found = read_metadata(small)
    assert found["u8"] == 200 and found["i8"] == -7 and found["u16"] == 65000
    assert found["i16"] == -30000 and found["u32"] == 4_000_000_000 and found["i32"] == -5
    assert found["u64"] == 1 << 40 and found["i64"] == -(1 << 40)
    assert found["f32"] == 0.5 and found["f64"] == 0.1 and found["yes"] is True
    assert found["text"] == "naïve 中文" and found["numbers"] == [1, -2, 3]
    assert found["texts"] == ["a", "", "ß"] and found["flags"] == [True, False]


def test_cut_off_anywhere_is_an_error(small, tmp_path):
    data = small.read_bytes()
    end = data.index(b"weight")  # behind it stands what is not read
    for place in range(0, end - 12, 5):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(data[:place])
        with pytest.raises(ValueError, match=r"needs|cannot fit|are left"):
            read_metadata(cut)


def file_of(*parts):
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"".join(parts)


def text(value):
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGML" + bytes(40), "begins with b'GGML'"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(40), "version is 1;"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 62), "cannot fit"),
        (file_of(struct.pack("<Q", 1 << 63), bytes(20)), "a text needs"),
        (file_of(text(b"k"), struct.pack("<I", 99), bytes(20)), "type 99"),
        (file_of(text(b"\xff\xfe"), bytes(20)), "no UTF-8"),
        (file_of(text(b"k"), struct.pack("<IIQ", 9, 4, 1 << 61), bytes(9)), "cannot fit"),
        (file_of(text(b"k"), struct.pack("<IIQ", 9, 8, 1 << 60), bytes(9)), "cannot fit"),
        (file_of(text(b"k"), struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 8), "at depth 4"),
    ],
)
def test_hostile_files(data, message, tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_metadata(path)


def test_a_key_twice_and_no_file(tmp_path):
    entry = text(b"k") + struct.pack("<IB", 0, 1)
    path = tmp_path / "twice.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + entry * 2)
    with pytest.raises(ValueError, match="twice"):
        read_metadata(path)
    with pytest.raises(ValueError, match="no GGUF file"):
        read_metadata(tmp_path / "none.gguf")
