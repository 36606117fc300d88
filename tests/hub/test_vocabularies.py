import json
import random

import gguf
import pytest
import sentencepiece
import tokenizers as hf

from minillm import assets
from minillm.hub.gguf import read_metadata
from minillm.hub.vocabularies import load_tokenizer, tokenizer_from_gguf
from minillm.tokenizers import (
    BPETokenizer,
    SentencePieceTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)

TEXTS = [
    "The unhappiest tokenizers can't spell strawberry.",
    "今天天气很好，我们去公园散步吧。",
    "def f(xs):\n    return [x ** 2 for x in xs]",
    "Zhang Wei paid 1234567 yuan  on 2024-11-30. ",
    "\u0004\u0006control \x7f naïve 👩‍👧 \u2581x",
]


def texts(n=1500):
    draw = random.Random(0)
    alphabet = "aeinorst THEBC019.,!'\n\t中文字あ한éßΩ🎉\u0301\u0004\x7f▁<>/s"
    return TEXTS + ["".join(draw.choices(alphabet, k=draw.randrange(1, 30))) for _ in range(n)]


@pytest.fixture(scope="module")
def smollm():
    return assets.fetch("smollm2-135m-instruct")


def test_byte_level_bpe_from_a_real_gguf(smollm):
    """Against the `tokenizers` package, given the lists that the `gguf` package reads."""
    ours, fields = load_tokenizer(smollm), gguf.GGUFReader(smollm)
    tokens = fields.get_field("tokenizer.ggml.tokens").contents()
    merges = fields.get_field("tokenizer.ggml.merges").contents()
    model = hf.models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in merges],
    )
    theirs = hf.Tokenizer(model)
    digits = hf.pre_tokenizers.Digits(individual_digits=True)
    bytes_ = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.pre_tokenizer = hf.pre_tokenizers.Sequence([digits, bytes_])
    for text, encoding in zip(texts(), theirs.encode_batch(texts()), strict=True):
        assert ours.encode(text) == encoding.ids, repr(text)
    assert (ours.vocab_size, ours.eos) == (49152, "<|im_end|>")
    assert ours.encode("a<|im_start|>", allowed_special="all")[-1] == 1
    assert ours.decode(ours.encode("a\u0004b")) == "ab"  # a byte that SmolLM2 does not know


def test_the_wrong_split_is_noticed(smollm):
    ours, metadata = load_tokenizer(smollm), read_metadata(smollm)
    other = BPETokenizer(
        ours.ids, merges=ours.merges, special_tokens=ours.special_tokens, drop_unknown=True
    )
    assert metadata["tokenizer.ggml.pre"] == "smollm"
    # No merge was ever learned across the border of a digit, so the ids agree; the cuts do not.
    assert ours.split("a 1999") == ["a", " ", *"1999"] != other.split("a 1999")
    with pytest.raises(ValueError, match="drop_unknown=True"):
        BPETokenizer(ours.ids, merges=ours.merges)


def write_gguf(path, model, tokens, **arrays):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    for name, value in arrays.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", ["mistral", "unigram"])
def test_sentencepiece_from_gguf(kind, tmp_path):
    """Model → GGUF by the `gguf` package → ours: ids as SentencePiece gives from the model."""
    names = {"mistral": assets.fetch("mistral-spm")}
    names["unigram"] = assets.fetch("sentencepiece-test") / "botchan_en_unigram_1000.model"
    model = SentencePieceTokenizer.from_model(names[kind]).model
    options = dict(
        token_scores=[piece.score for piece in model.pieces],
        token_types=[int(piece.kind) for piece in model.pieces],
        add_space_prefix=model.rules.dummy_prefix,
        remove_extra_whitespaces=model.rules.remove_extra_blanks,
        eos_token_id=2,
    )
    if model.rules.charsmap:
        options["precompiled_charsmap"] = model.rules.charsmap
    method = "llama" if kind == "mistral" else "t5"
    path = tmp_path / "m.gguf"
    write_gguf(path, method, [piece.text for piece in model.pieces], **options)
    ours = load_tokenizer(path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(names[kind]))
    assert [ours.encode(text) for text in texts()] == theirs.encode(texts())
    assert ours.eos == "</s>"


def test_wordpiece_from_gguf(tmp_path):
    bert = load_tokenizer(assets.fetch("minilm-l6") / "vocab.txt")
    tokens = {i: name for name, i in bert.special_tokens.items()}
    for piece, i in bert.ids.items():
        tokens[i] = piece[2:] if piece.startswith("##") else f"▁{piece}"
    kinds = [3 if i in set(bert.special_tokens.values()) else 1 for i in range(len(tokens))]
    listed = [tokens[i] for i in range(len(tokens))]
    ours = tokenizer_from_gguf(write_gguf(tmp_path / "b.gguf", "bert", listed, token_types=kinds))
    assert all(ours.encode(text) == bert.encode(text) for text in texts())


def test_files_are_known_by_their_names(tmp_path):
    bert = assets.fetch("minilm-l6")
    from_folder, from_list = load_tokenizer(bert), load_tokenizer(bert / "vocab.txt")
    assert isinstance(from_folder, WordPieceTokenizer) and from_folder.ids == from_list.ids
    assert isinstance(load_tokenizer(assets.fetch("mistral-spm")), SentencePieceTokenizer)
    content = {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.0]]},
        "pre_tokenizer": {"type": "Metaspace"},
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    unigram = load_tokenizer(tmp_path)
    assert isinstance(unigram, UnigramTokenizer) and unigram.encode("a b") == [1, 0]


def test_what_cannot_be_read(tmp_path, smollm):
    for name, content, message in (
        ("x.json", "[]", "object is expected"),
        ("y.json", '{"model": {"type": "WordLevel"}}', "of type 'WordLevel'"),
        ("z.bin", "", "no tokenizer file known"),
        ("w.model", "x", "cannot be used"),
        ("v.gguf", "GGUF", "needs"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load_tokenizer(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="none of"):
        load_tokenizer(tmp_path / "empty")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("rwkv", {}, "its tokenizer is 'rwkv'"),
        ("gpt2", {"tokenizer_pre": "odd"}, "split is called 'odd'"),
        ("gpt2", {"token_types": [1]}, "has 1 entries for 2 tokens"),
        ("gpt2", {}, "merges is None"),
        ("gpt2", {"token_merges": ["a"]}, "not a pair"),
        ("gpt2", {"token_merges": ["a zz"]}, "is not a token"),
        ("llama", {}, "scores is None"),
        ("llama", {"token_scores": [0.5, 1.5], "token_types": [1, 77]}, "77"),
        ("llama", {"token_scores": [0.5, 1.5], "token_types": [1, 1]}, "exactly one"),
        ("bert", {}, "must be among the special tokens"),
    ],
)
def test_broken_vocabularies(model, options, message, tmp_path):
    path = write_gguf(tmp_path / "b.gguf", model, ["a", "b"], **options)
    with pytest.raises(ValueError, match=message):
        tokenizer_from_gguf(path)
