import pytest
import tokenizers

from minillm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, WordTokenizer, train_bpe

TEXT = "The cat sat. The cat's hat, naïve 中文 😀!\n\tEnd"


def test_bytes_are_utf8():
    tokenizer = ByteTokenizer({"<|endoftext|>": 256}, eos="<|endoftext|>")
    assert tokenizer.encode(TEXT) == list(TEXT.encode("utf-8"))
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (257, 256)
    assert "".join(tokenizer.decode_stream(tokenizer.encode(TEXT))) == TEXT


def test_characters():
    tokenizer = CharTokenizer.from_text("hello")
    assert tokenizer.ids == {"l": 0, "e": 1, "h": 2, "o": 3}  # most frequent first, then by text
    assert tokenizer.encode("hole") == [2, 3, 0, 1]
    assert tokenizer.encode("help") == [2, 1, 0, 4]
    assert tokenizer.decode([2, 1, 0, 4]) == "hel<unk>"
    assert tokenizer.spans("hé!") == [(0, 1), (1, 2), (2, 3)]


def test_words():
    tokenizer = WordTokenizer.from_text(["the cat", "the hat."], max_entries=3)
    assert list(tokenizer.ids) == [" ", "the", "."]
    assert tokenizer.split("the bat.  x_1") == ["the", " ", "bat", ".", "  ", "x_1"]
    assert tokenizer.encode("the bat.") == [1, 0, 3, 2]
    assert tokenizer.decode([1, 0, 3, 2]) == "the <unk>."


def test_unknown_pieces_without_an_unknown_token():
    tokenizer = CharTokenizer.from_text("abc", special_tokens=())
    with pytest.raises(ValueError, match="'z' is not in the vocabulary: add '<unk>'"):
        tokenizer.encode("abz")


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_tables_go_out_and_in(kind, tmp_path):
    tokenizer = kind.from_text(TEXT, special_tokens=("<unk>", "<s>"))
    tokenizer.save(tmp_path)
    again = kind.load(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (TEXT, "The hat sat on a mat\u2028 ü", ""):
        assert tokenizer.encode(text) == again.encode(text) == theirs.encode(text).ids
    assert again.special_tokens == tokenizer.special_tokens
    assert theirs.decode(tokenizer.encode(TEXT)) == TEXT == again.decode(again.encode(TEXT))
    other = WordTokenizer if kind is CharTokenizer else CharTokenizer
    with pytest.raises(ValueError, match=f"not a {other.__name__}"):
        other.load(tmp_path)


def test_bytes_go_out_and_in(tmp_path):
    tokenizer = ByteTokenizer({"<s>": 256})
    tokenizer.save(tmp_path)
    again = ByteTokenizer.load(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode(TEXT) == again.encode(TEXT) == theirs.encode(TEXT).ids
    assert BPETokenizer.load(tmp_path).encode(TEXT) == tokenizer.encode(TEXT)
    assert theirs.decode(tokenizer.encode(TEXT)) == TEXT
    BPETokenizer({**{bytes([i]): i for i in range(256)}, b"ab": 256}).save(tmp_path)
    with pytest.raises(ValueError, match="not the 256 bytes"):
        ByteTokenizer.load(tmp_path)


NAMES = {"<unk>": 300, "<|end|>": 301}


@pytest.mark.parametrize("eos", [None, "<|end|>", "<unk>"])
@pytest.mark.parametrize(
    "tokenizer",
    [
        lambda eos: ByteTokenizer(NAMES, eos=eos),
        lambda eos: CharTokenizer.from_text("abc", special_tokens=[*NAMES], eos=eos),
        lambda eos: WordTokenizer({"a": 0}, NAMES, eos=eos),
        lambda eos: BPETokenizer(
            {bytes([i]): i for i in range(256)}, special_tokens=NAMES, eos=eos
        ),
        lambda eos: train_bpe("abab", 300, special_tokens=[*NAMES], eos=eos),
    ],
    ids=["bytes", "characters", "words", "bpe", "trained"],
)
def test_the_end_token_is_kept(tokenizer, eos, tmp_path):
    tokenizer = tokenizer(eos)
    tokenizer.save(tmp_path)
    again = type(tokenizer).load(tmp_path)
    assert (again.eos, again.eos_id) == (eos, tokenizer.special_tokens.get(eos))
    assert again.special_tokens == tokenizer.special_tokens
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.token_to_id("<|end|>") == tokenizer.special_tokens["<|end|>"]


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharTokenizer.from_text("a")])
def test_empty_text(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.spans("") == []
    assert list(tokenizer.decode_stream([])) == []
    assert tokenizer.eos_id is None


def test_user_text_cannot_inject_special_tokens():
    tokenizer = WordTokenizer.from_text("a b <unk>", special_tokens=("<unk>", "<s>"))
    assert tokenizer.special_tokens["<s>"] not in tokenizer.encode("a <s> b")
    assert tokenizer.encode("<s>", allowed_special=["<s>"]) == [tokenizer.special_tokens["<s>"]]


@pytest.mark.parametrize("vocab", [{"a": -1}, {"a": 0, "b": 0}, {"a": True}])
def test_bad_tables(vocab):
    with pytest.raises(ValueError, match="id"):
        CharTokenizer(vocab)
