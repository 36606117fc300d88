import base64
import json
import unicodedata

import pytest
import tokenizers.normalizers as hf

from minillm import assets
from minillm.tokenizers.normalizers import compile_normalizer, precompiled
from minillm.tokenizers.sentencepiece_model import SentencePieceModel


@pytest.fixture(scope="module")
def charsmap():
    path = assets.fetch("sentencepiece-test") / "botchan_en_unigram_1000.model"
    return SentencePieceModel.from_bytes(path.read_bytes()).rules.charsmap


def settled(text):
    """Are all characters as old as Unicode 3.2? Later ones depend on a library's tables."""
    return all(unicodedata.ucd_3_2_0.category(c) != "Cn" for c in text)


@pytest.mark.parametrize(
    "theirs",
    [
        hf.NFC(),
        hf.NFKD(),
        hf.Lowercase(),
        hf.Prepend("▁"),
        hf.Replace(" ", "▁"),
        hf.Strip(left=False, right=True),
        hf.Sequence([hf.NFKC(), hf.Strip(), hf.Lowercase()]),
    ],
)
def test_equal_to_tokenizers(theirs, strings):
    ours = compile_normalizer(json.loads(theirs.__getstate__()))
    for text in filter(settled, strings[:5000]):
        assert ours(text) == theirs.normalize_str(text), repr(text)


def test_precompiled_rules(charsmap, strings):
    theirs, ours = hf.Precompiled(charsmap), precompiled(charsmap)
    step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    again = compile_normalizer(step)
    for text in filter(settled, strings[:3000]):
        assert ours(text) == theirs.normalize_str(text), repr(text)
    assert again("ｆｕｌｌ") == "full" and precompiled(b"")("ｆ") == "ｆ"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "Rot13"}, "not known"),
        ({"type": "Prepend", "prepend": 3}, "not known"),
        ({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}, "cannot be compiled"),
        ({"type": "Replace", "pattern": {"String": "a"}}, "not a text"),
        ({"type": "Replace", "pattern": {}, "content": ""}, "neither a String"),
        ({"type": "Sequence", "normalizers": None}, "not a list"),
        ({"type": "Precompiled", "precompiled_charsmap": "§"}, "not base64"),
        ({"type": "Precompiled", "precompiled_charsmap": None}, "not base64"),
    ],
)
def test_bad_steps(step, message):
    assert compile_normalizer(None)("Ab") == "Ab"
    with pytest.raises(ValueError, match=message):
        compile_normalizer(step)
