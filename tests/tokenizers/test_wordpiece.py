import json
import unicodedata

import pytest
import tokenizers
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer, WordpieceTokenizer

from minillm import assets
from minillm.tokenizers import WordPieceTokenizer
from minillm.tokenizers.wordpiece import clean, is_chinese, is_punctuation, longest_pieces, words


@pytest.fixture(scope="module")
def folder():
    return assets.fetch("minilm-l6")


@pytest.fixture(scope="module")
def ours(folder):
    return WordPieceTokenizer.from_vocab(folder / "vocab.txt")


@pytest.fixture(scope="module")
def theirs(folder):
    """The `tokenizers` package with the same file, special names in texts taken as text."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content |= {"truncation": None, "padding": None, "post_processor": None, "added_tokens": []}
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@pytest.fixture(scope="module")
def newer(theirs, strings):
    """Characters that `tokenizers` sees otherwise: from older tables of Unicode, and by a slip.

    The slip: it lets one block of Chinese characters begin at U+2B920, where BERT has U+2B820.
    """
    found = {chr(point) for point in range(0x2B820, 0x2B920)}
    for c in sorted(set("".join(strings))):
        kept = theirs.normalizer.normalize_str(f"a{c}b") != "ab"
        parts = len(theirs.pre_tokenizer.pre_tokenize_str(f"a{c}"))
        drop = not clean(c) or all(
            unicodedata.category(d) == "Mn" for d in unicodedata.normalize("NFD", c)
        )
        if kept == drop or (kept and is_punctuation(c) != (parts == 2) and not c.isspace()):
            found.add(c)
    return found


def test_ids_equal_on_random_strings(ours, theirs, strings, newer):
    known = {c for c in newer if unicodedata.ucd_3_2_0.category(c) != "Cn"}
    assert len(newer) < 600 and len(known) < 8  # newer than Unicode 3.2, but for a few
    texts = [text for text in strings if not newer & set(text)]
    assert len(texts) > 38_500
    for text, encoding in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text) == encoding.ids, repr(text)


def test_ids_equal_to_the_original_python(ours, strings, newer):
    """transformers keeps the Python code of BERT's authors; it lowers Σ by its place in a word."""
    basic, piece = BasicTokenizer(), WordpieceTokenizer(ours.ids, "[UNK]")
    unknown = {"[UNK]": ours.unknown_id}
    for text in strings[:1500]:
        if set(text) & (newer | {"Σ"}) or any(
            unicodedata.category(c) in ("Cn", "Co") for c in text
        ):
            continue
        pieces = [p for word in basic.tokenize(text) for p in piece.tokenize(word)]
        assert ours.encode(text) == [(ours.ids | unknown)[p] for p in pieces], repr(text)


def test_words_equal(ours, theirs, strings, newer):
    for text in [text for text in strings[:2500] if not newer & set(text)]:
        normal = theirs.normalizer.normalize_str(text)
        assert ours.split(text) == [w for w, _ in theirs.pre_tokenizer.pre_tokenize_str(normal)]


def no_chinese(tokenizer):
    return dict(chinese=False)


def keeps_case(tokenizer):
    return dict(lower=False)


def keeps_accents(tokenizer):
    return dict(accents=True)


def no_cleaning(tokenizer):
    return dict(cleaning=False)


def words_of_any_length(tokenizer):
    return dict(longest_word=10**9)


def other_prefix(tokenizer):
    return dict(prefix="@@")


@pytest.mark.parametrize(
    "wrong",
    [no_chinese, keeps_case, keeps_accents, no_cleaning, words_of_any_length, other_prefix],
)
def test_wrong_options_are_noticed(wrong, ours, theirs):
    texts = ["中文", "Café", "ca\u0301fé", "a\u200bb", "a" * 101, "unaffable", "naïve B"]
    other = WordPieceTokenizer(ours.ids, ours.special_tokens, **wrong(ours))
    assert any(other.encode(text) != theirs.encode(text).ids for text in texts)


def pieces_kept_before_the_gap(word, vocab):
    """A wrong version: what was found before the piece that is missing is kept."""
    for end in range(len(word), 0, -1):
        if pieces := longest_pieces(word[:end], vocab):
            return pieces
    return None


def test_one_missing_piece_makes_the_word_unknown(ours, theirs):
    for word in ("play", "playing", "unaffable", "tokenizers", "x中", "🎉party", "party🎉"):
        assert ours.encode(word) == theirs.encode(word).ids
    assert ours.encode("party🎉") == [ours.unknown_id]
    assert longest_pieces("party🎉", ours.ids) is None
    assert pieces_kept_before_the_gap("party🎉", ours.ids) is not None
    assert longest_pieces("unaffable", {"un": 0, "##aff": 1, "##able": 2, "##a": 3}) == [
        "un", "##aff", "##able",
    ]  # fmt: skip
    assert longest_pieces("abcd", {"abc": 0, "ab": 1, "##cd": 2}) is None  # greedy: no way back
    assert ours.encode("a" * 100) != [ours.unknown_id] == ours.encode("a" * 101)


def test_decoding(ours, theirs, folder):
    theirs.decoder = tokenizers.decoders.WordPiece(cleanup=False)
    for text in ("The unhappiest tokenizers, naïve 中文.", "a", "", "##ing x"):
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
        assert "".join(ours.decode_stream(ids)) == ours.decode(ids)
    ids = ours.encode("[CLS]unhappy[SEP]", allowed_special="all")
    assert ids[0] == 101 and ids[-1] == 102
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    assert ours.decode(ours.encode("Naïve CAFÉ")) == "naive cafe"


def test_files(ours, folder, tmp_path, strings):
    from_json = WordPieceTokenizer.load(folder)  # its tokenizer.json
    assert (from_json.ids, from_json.special_tokens) == (ours.ids, ours.special_tokens)
    cased = WordPieceTokenizer(ours.ids, ours.special_tokens, lower=False, accents=True)
    for tokenizer in (ours, cased):
        tokenizer.save(tmp_path)
        written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        again = WordPieceTokenizer.load(tmp_path)
        for text in [text for text in strings[:300] if "[" not in text]:
            assert again.encode(text) == tokenizer.encode(text)
        for text in ("Naïve Café", "中文 AB", "x\u200by"):
            assert written.encode(text).ids == tokenizer.encode(text)


def test_pieces_of_the_cleaner():
    assert clean("a\x00\ufffd\tb\u2003c\x7f\u200bd") == "a b cd"
    assert list(words("it's  (x)…  ")) == ["it", "'", "s", "(", "x", ")", "…"]
    assert is_chinese("中") and is_chinese("\U0002b820") and not is_chinese("あ")
    assert is_punctuation("$") and is_punctuation("、") and not is_punctuation("€")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "BPE"}}, "not 'WordPiece'"),
        ({"normalizer": None}, "the normalizer is None"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "only BertPreTokenizer"),
        ({"model": {"type": "WordPiece", "unk_token": "?", "vocab": {}}}, "unk_token"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "must be among the special tokens"),
        ({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": -1}}}, "must be text"),
        ({"model": {"type": "WordPiece", "vocab": [], "unk_token": "[UNK]"}}, "not a dict"),
        (
            {"model": {"type": "WordPiece", "vocab": {}, "continuing_subword_prefix": 3}},
            "prefix 3",
        ),
    ],
)
def test_bad_files(change, message):
    content = {
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1}},
    }
    WordPieceTokenizer.from_json(content)
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.from_json(content | change)


def test_bad_vocabularies(tmp_path):
    path = tmp_path / "vocab.txt"
    for lines, message in (
        (b"[UNK]\na\na\n", "line 3"),
        (b"[UNK]\n\na\n", "line 2"),
        (b"a\nb\n", "must be among"),
        (b"\xff\xfe", "no UTF-8"),
    ):
        path.write_bytes(lines)
        with pytest.raises(ValueError, match=message):
            WordPieceTokenizer.from_vocab(path)
    with pytest.raises(ValueError, match="no vocabulary"):
        WordPieceTokenizer.from_vocab(tmp_path)
    path.write_bytes("[UNK]\r\na\r\n\u2028\r\n".encode())  # U+2028 ends no line here
    assert WordPieceTokenizer.from_vocab(path).ids == {"a": 1, "\u2028": 2}
    for options in (dict(prefix=""), dict(longest_word=0)):
        with pytest.raises(ValueError, match="prefix"):
            WordPieceTokenizer({"a": 1}, {"[UNK]": 0}, **options)
    with pytest.raises(ValueError, match="share an id"):
        WordPieceTokenizer({"a": 1, "b": 1}, {"[UNK]": 0})
