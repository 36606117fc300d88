import random

import pytest
import sentencepiece

from minillm import assets
from minillm.tokenizers.protobuf import fields, write_field, write_varint
from minillm.tokenizers.sentencepiece_model import (
    Kind,
    Method,
    Piece,
    SentencePieceModel,
    byte_value,
)


@pytest.fixture(scope="module")
def data():
    return (assets.fetch("sentencepiece-test") / "botchan_en_unigram_1000.model").read_bytes()


def test_every_piece_is_read(data):
    model = SentencePieceModel.from_bytes(data)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert len(model.pieces) == theirs.vocab_size()
    for i, piece in enumerate(model.pieces):
        assert (piece.text, piece.score) == (theirs.id_to_piece(i), theirs.get_score(i))
        assert (piece.kind is Kind.CONTROL) == theirs.is_control(i)
        assert (piece.kind is Kind.UNKNOWN) == theirs.is_unknown(i)
    assert model.method is Method.UNIGRAM and model.rules.dummy_prefix


def test_cut_off_anywhere_is_an_error(data):
    places = random.Random(0).sample(range(1, len(data)), 20)
    for place in [*range(1, 40, 3), *places]:
        with pytest.raises(ValueError, match=r"cut off|no pieces|no protocol|not |needs|is the"):
            SentencePieceModel.from_bytes(data[:place])


def test_broken_bytes_never_give_another_error(data):
    draw, refused = random.Random(1), 0
    for _ in range(30):
        broken = bytearray(data)
        for _ in range(3):
            broken[draw.randrange(20_000)] = draw.randrange(256)
        try:
            SentencePieceModel.from_bytes(bytes(broken))
        except ValueError:
            refused += 1
    assert refused > 5


def model_of(*pieces, trainer=((3, 1),)):
    entries = [[(1, text), (2, score), (3, kind)] for text, score, kind in pieces]
    out = [write_field(1, b"".join(write_field(*part) for part in entry)) for entry in entries]
    return b"".join([*out, write_field(2, b"".join(write_field(*part) for part in trainer))])


UNK = ("<unk>", 0.0, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pieces"),
        (b"\x0a\xff\xff\xff\xff\x7f", "needs .* bytes and 0 are left"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc", "are left"),
        (b"\xff" * 12, "has no end"),
        (b"\x0b\x01", "wire type 3"),
        (b"\x08\x05", "is the number 5"),
        (b"\x00\x01", "field number is 0"),
        (model_of(UNK, ("a", 1.0, 9)), "known are"),
        (model_of(UNK, ("a", float("nan"), 1)), "finite score"),
        (model_of(UNK, ("", 0.0, 1)), "a piece is a text"),
        (model_of(UNK, ("a\0", 0.0, 1)), "a piece is a text"),
        (model_of(UNK, ("x" * 9000, 0.0, 1)), "a piece is a text"),
        (model_of(UNK, (b"\xff\xfe", 0.0, 1)), "no UTF-8"),
        (model_of(UNK, ("a", 0.0, 1), ("a", 0.0, 1)), "are both 'a'"),
        (model_of(("a", 0.0, 1)), "exactly one"),
        (model_of(UNK, ("b", 0.0, 2)), "exactly one"),
        (model_of(UNK, ("<0x41>", 0.0, 6)), "byte fallback is off"),
        (model_of(UNK, ("<0x41>", 0.0, 6), trainer=((3, 1), (35, 1))), "byte fallback is on"),
        (model_of(UNK, ("a", 0.0, 1), trainer=((3, 7),)), "model_type has type 7"),
    ],
)
def test_impossible_models_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        SentencePieceModel.from_bytes(content)


def test_byte_pieces():
    assert [byte_value(f"<0x{b:02X}>") for b in range(256)] == [*range(256)]
    assert byte_value("<0x4g>") is byte_value("<0xab>") is byte_value("A") is None


def test_wire_format():
    assert write_varint(300) == b"\xac\x02"  # the example of protobuf's documentation
    assert list(fields(b"\x08\x96\x01")) == [(1, 150)]
    assert list(fields(write_field(2, "testing"))) == [(2, b"testing")]
    assert list(fields(write_field(4, -1))) == [(4, (1 << 64) - 1)]
    assert list(fields(write_field(5, 1.0))) == [(5, b"\0\0\x80?")]


def test_writing_is_reading_backwards():
    model = SentencePieceModel((Piece("<unk>", 0.0, Kind.UNKNOWN), Piece("▁a", -1.5)), Method.BPE)
    assert SentencePieceModel.from_bytes(model.to_bytes()) == SentencePieceModel(
        model.pieces, Method.BPE, rules=SentencePieceModel.from_bytes(model.to_bytes()).rules
    )
