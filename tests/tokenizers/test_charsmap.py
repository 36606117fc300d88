import pytest

from minillm import assets
from minillm.tokenizers.charsmap import CharsMap
from minillm.tokenizers.sentencepiece_model import SentencePieceModel


@pytest.fixture(scope="module")
def blob():
    path = assets.fetch("sentencepiece-test") / "kyoto_ja_unigram_8000.model"
    return SentencePieceModel.from_bytes(path.read_bytes()).rules.charsmap


def test_rules_are_nfkc(blob):
    """The rules are NFKC, but for white space and the like (compared with Python's own tables)."""
    import unicodedata

    rules = CharsMap.from_bytes(blob).rules
    assert len(rules) > 100_000
    known = [s for s in rules if len(s) == 1 and unicodedata.ucd_3_2_0.category(s) != "Cn"]
    same = sum(rules[s] == unicodedata.normalize("NFKC", s) for s in known)
    assert len(known) > 4000 and same > 0.98 * len(known)


def test_longest_rule_wins():
    apply = CharsMap({"a": "1", "ab": "2", "abc": "3", "x": "", "b ": "b"})
    assert apply("abcabab a xb ") == "32" + "2 1 b"
    assert apply("") == "" and apply("no rule") == "no rule"
    assert list(apply.steps("abx")) == ["2", ""]
    with pytest.raises(ValueError, match="empty text"):
        CharsMap({"": "a"})


def test_broken_maps(blob):
    for cut in (0, 3, 7, 1000, len(blob) // 2):
        with pytest.raises(ValueError, match=r"cut off|points"):
            CharsMap.from_bytes(blob[:cut])
    units = [2 << 10 | 1] * 256  # the root leads to unit 3, unit 3 to itself
    units[3] = 1 << 10 | 1
    circle = b"".join(unit.to_bytes(4, "little") for unit in [1024, *units])
    with pytest.raises(ValueError, match="no end"):
        CharsMap.from_bytes(circle + b"\0")
    outside = (1024).to_bytes(4, "little") + (0x1FFFFF << 10 | 0x100).to_bytes(4, "little") * 256
    with pytest.raises(ValueError, match="outside the trie"):
        CharsMap.from_bytes(outside + b"\0")
