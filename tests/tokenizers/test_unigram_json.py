import json
import unicodedata

import pytest
import tokenizers as hf

from minillm.data import corpus
from minillm.tokenizers import UnigramTokenizer


def train(prepend, normalizer, at_space, byte_fallback=False):
    """A Unigram tokenizer of the `tokenizers` package: the file, and the tokenizer itself."""
    theirs = hf.Tokenizer(hf.models.Unigram())
    if normalizer is not None:
        theirs.normalizer = normalizer
    space = hf.pre_tokenizers.Metaspace(prepend_scheme=prepend)
    steps = [hf.pre_tokenizers.WhitespaceSplit(), space]
    theirs.pre_tokenizer = hf.pre_tokenizers.Sequence(steps) if at_space else space
    theirs.decoder = hf.decoders.Metaspace(prepend_scheme=prepend)
    special = ["<unk>", "</s>"]
    trainer = hf.trainers.UnigramTrainer(
        vocab_size=300, unk_token="<unk>", special_tokens=special, show_progress=False
    )
    theirs.train_from_iterator(corpus.documents("sotu")[0][:8000].splitlines(), trainer)
    content = json.loads(theirs.to_str())
    if byte_fallback:
        content["model"]["byte_fallback"] = True
        content["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        theirs = hf.Tokenizer.from_str(json.dumps(content))
    return content, theirs


CLEAN = hf.normalizers.Sequence(
    [hf.normalizers.NFKC(), hf.normalizers.Replace(hf.Regex(" {2,}"), " ")]
)


@pytest.mark.parametrize(
    ("prepend", "normalizer", "at_space", "byte_fallback"),
    [
        ("always", None, False, False),
        ("always", CLEAN, True, False),
        ("first", None, True, False),
        ("first", CLEAN, False, True),
        ("never", CLEAN, False, False),
        ("always", CLEAN, False, True),
    ],
)
def test_ids_equal(prepend, normalizer, at_space, byte_fallback, strings):
    content, theirs = train(prepend, normalizer, at_space, byte_fallback)
    ours = UnigramTokenizer.from_json(content)
    written = hf.Tokenizer.from_str(json.dumps(ours.to_json()))
    old = unicodedata.ucd_3_2_0.category  # newer characters depend on a library's tables
    texts = [text for text in strings[:1200] if all(old(c) != "Cn" for c in text)]
    encoded, again = theirs.encode_batch(texts), written.encode_batch(texts)
    for text, one, two in zip(texts, encoded, again, strict=True):
        ids = ours.encode(text, allowed_special="all")
        assert ids == one.ids == two.ids, repr(text)
        if not byte_fallback:
            assert ours.decode(ids) == theirs.decode(one.ids, skip_special_tokens=False)
        assert "".join(ours.decode_stream(ids)) == ours.decode(ids)


def test_wrong_options_are_noticed(strings):
    content, theirs = train("always", CLEAN, False)
    for change in (
        dict(normalizer=None),
        dict(pre_tokenizer={"type": "Metaspace", "prepend_scheme": "never"}),
        dict(pre_tokenizer={"type": "Metaspace", "prepend_scheme": "always", "split": False}),
    ):
        other = UnigramTokenizer.from_json(content | change)
        texts = [*strings[:500], "the  senate", "of the", "a  b   c"]
        differ = [t for t in texts if other.encode(t) != theirs.encode(t).ids]
        same_cuts = change.get("pre_tokenizer", {}).get("split") is False
        assert bool(differ) or same_cuts  # no piece crosses a blank: without the cut, the same


GOOD = {
    "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]},
    "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "BPE"}}, "not 'Unigram'"),
        ({"model": {"type": "Unigram", "vocab": {}}}, "not a list"),
        ({"model": {"type": "Unigram", "vocab": [["a"]]}}, "not a piece and its score"),
        ({"model": {"type": "Unigram", "vocab": [["a", float("inf")]]}}, "not a piece and"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0], ["a", 0.0]]}}, "are the same"),
        ({"model": {"type": "Unigram", "unk_id": 5, "vocab": [["a", 0.0]]}}, "id 5 is not one"),
        ({"model": {"type": "Unigram", "unk_id": "0", "vocab": [["a", 0.0]]}}, "not an integer"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "not Metaspace"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}}, "blank is written '_'"),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "last"}}, "prepend is 'last'"),
        ({"added_tokens": [{"content": "b", "id": 1}]}, "has the id 1 of 'a'"),
        ({"normalizer": {"type": "Rot13"}}, "not known here"),
    ],
)
def test_bad_files(change, message):
    assert UnigramTokenizer.from_json(GOOD).encode("aa") == [1, 1]
    with pytest.raises(ValueError, match=message):
        UnigramTokenizer.from_json(GOOD | change)
