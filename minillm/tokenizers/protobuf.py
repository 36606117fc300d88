"""The protocol buffers' wire format, as much of it as a SentencePiece `.model` needs.

A message is a sequence of fields, each a key and a value. The key is a varint, (number << 3) |
kind; kind 0 is a varint (seven bits a byte, lowest first, the top bit says that more follow), 1
eight bytes, 2 a length and as many bytes, 5 four bytes. The bytes of kind 2 may be text or another
message: the format does not tell, the reader has to know
(https://protobuf.dev/programming-guides/encoding).
"""

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) of each field of a message: an int, or the bytes of kinds 1, 2, 5."""
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"a field number is 0 at byte {place}: this is no protocol buffer")
        if kind == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == BYTES:
            length, place = _varint(data, place)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"field {number} has the wire type {kind}: this is no protocol buffer")
        if length > end - place:
            raise ValueError(
                f"field {number} needs {length} bytes and {end - place} are left: the file is cut "
                "off or is no protocol buffer"
            )
        yield number, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins at `place`, and the place behind it."""
    value = 0
    for i, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & (1 << 64) - 1, place + i + 1
    raise ValueError(f"the number at byte {place} has no end: the file is cut off")


def write_varint(value: int) -> bytes:
    """Return a number as a varint; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def write_field(number: int, value: bool | int | float | str | bytes) -> bytes:
    """Return one field: a number as varint, a float as 4 bytes, text and bytes with their length.

    A field that comes again repeats it, so a list is its fields one after the other.
    """
    if isinstance(value, float):
        return write_varint(number << 3 | FIXED32) + struct.pack("<f", value)
    if isinstance(value, int):
        return write_varint(number << 3 | VARINT) + write_varint(value)
    value = value.encode("utf-8") if isinstance(value, str) else value
    return write_varint(number << 3 | BYTES) + write_varint(len(value)) + value
