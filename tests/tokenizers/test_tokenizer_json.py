import json

import pytest
import tokenizers

from minillm import assets
from minillm.data import corpus
from minillm.tokenizers import CL100K, BPETokenizer, train_bpe
from minillm.tokenizers.tokenizer_json import BYTE_ORDER, from_visible, to_visible


def sample(strings):
    return strings[:400] + strings[-400:]


def test_written_presets_load_in_the_tokenizers_package(preset, strings, tmp_path):
    _, tokenizer = preset
    tokenizer.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [text for text in sample(strings) if "<|" not in text]
    for text, encoding in zip(texts, theirs.encode_batch(texts), strict=True):
        assert tokenizer.encode(text) == encoding.ids, repr(text)
    assert theirs.decode(tokenizer.encode("naïve 中文")) == "naïve 中文"
    special = "a<|endoftext|>b"
    assert theirs.encode(special).ids == tokenizer.encode(special, allowed_special="all")


def test_written_files_come_back(gpt2, strings, tmp_path):
    tokenizer = gpt2
    tokenizer.save(tmp_path / "x.json")
    again = BPETokenizer.load(tmp_path / "x.json")
    assert (again.ids, again.special_tokens) == (tokenizer.ids, tokenizer.special_tokens)
    assert (again.patterns, again.eos_id) == (tokenizer.patterns, tokenizer.eos_id)
    assert all(again.encode(text) == tokenizer.encode(text) for text in sample(strings))


@pytest.fixture(scope="module")
def trained():
    texts = corpus.documents("sotu")[:5]
    return train_bpe(texts, 1500, pattern=CL100K, special_tokens=["<|endoftext|>"])


def test_a_trained_tokenizer_goes_out_and_in(trained, strings, tmp_path):
    trained.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = BPETokenizer.load(tmp_path)
    for text in sample(strings):
        if "<|" not in text:
            assert trained.encode(text) == theirs.encode(text).ids == again.encode(text), repr(text)
    assert again.merges == trained.merges
    assert again.to_json() == trained.to_json()


@pytest.mark.parametrize("use_regex", [True, False])
def test_reads_files_of_the_tokenizers_package(strings, tmp_path, use_regex):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, level])
    theirs.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<s>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    theirs.train_from_iterator([text[:50_000] for text in corpus.documents("sotu")[:3]], trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = BPETokenizer.load(tmp_path)
    assert ours.special_tokens == {"<s>": 0}
    texts = [text for text in sample(strings) if "<s>" not in text]
    for text, encoding in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text) == encoding.ids, repr(text)


def test_a_special_token_written_like_an_ordinary_one(tmp_path):
    tokenizer = BPETokenizer({bytes([b]): b for b in range(256)}, special_tokens={"a": 256})
    assert tokenizer.encode("a") == [97]
    with pytest.raises(ValueError, match="special token 'a' is written like"):
        tokenizer.save(tmp_path)


def test_reads_the_old_form_of_merges(trained, tmp_path):
    content = trained.to_json()
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert BPETokenizer.load(tmp_path).merges == trained.merges


def test_another_model_is_refused_by_name():
    folder = assets.fetch("minilm-l6")
    path = folder / "tokenizer.json" if folder.is_dir() else folder.parent / "tokenizer.json"
    with pytest.raises(ValueError, match=r"WordPiece.*only BPE"):
        BPETokenizer.load(path)


def test_the_visible_alphabet():
    assert to_visible(b" the\n") == "ĠtheĊ"
    assert from_visible("Ġthe") == b" the"
    assert sorted(BYTE_ORDER) == list(range(256))
    assert all(from_visible(to_visible(bytes([b]))) == bytes([b]) for b in range(256))
    alphabet = {to_visible(bytes([b])) for b in range(256)}
    assert alphabet == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def deep(n):
    step = {"type": "ByteLevel", "add_prefix_space": False}
    for _ in range(n):
        step = {"type": "Sequence", "pretokenizers": [step]}
    return step


HOSTILE = {
    "nothing_at_all": (lambda c: c.clear(), "'model' is None"),
    "no_model": (lambda c: c.pop("model"), "'model' is None"),
    "model_is_text": (lambda c: c.update(model="BPE"), "'model' is 'BPE'"),
    "another_model": (lambda c: c["model"].update(type="Unigram"), "Unigram.*only BPE"),
    "no_merges": (lambda c: c["model"].pop("merges"), "'merges' is None"),
    "merges_are_numbers": (lambda c: c["model"].update(merges=[[1, 2]]), "not a pair"),
    "merge_of_three": (lambda c: c["model"].update(merges=["a b c"]), "not a pair"),
    "merge_with_nothing": (lambda c: c["model"].update(merges=[["a", ""]]), "not a pair"),
    "merge_unknown": (lambda c: c["model"].update(merges=[["a", "~"]]), "b'a~' is not a token"),
    "merge_is_null": (lambda c: c["model"].update(merges=[None]), "not a pair"),
    "no_vocab": (lambda c: c["model"].update(vocab=None), "'vocab' is None"),
    "vocab_is_a_list": (lambda c: c["model"].update(vocab=["a"]), "'vocab' is"),
    "duplicate_ids": (lambda c: c["model"]["vocab"].update(a=1), "share the id 1"),
    "id_is_text": (lambda c: c["model"]["vocab"].update(a="1"), "id '1'"),
    "id_is_true": (lambda c: c["model"]["vocab"].update(a=True), "id True"),
    "id_is_huge": (lambda c: c["model"]["vocab"].update(a=10**30), "id 1000"),
    "id_is_negative": (lambda c: c["model"]["vocab"].update(a=-1), "id -1"),
    "missing_byte": (lambda c: c["model"]["vocab"].pop("!"), "1 of the 256 bytes"),
    "foreign_character": (lambda c: c["model"]["vocab"].update({"▁the": 99999}), "'▁'"),
    "byte_fallback": (lambda c: c["model"].update(byte_fallback=True), "byte_fallback"),
    "normalizer": (lambda c: c.update(normalizer={"type": "Lowercase"}), "Lowercase"),
    "no_pre_tokenizer": (lambda c: c.update(pre_tokenizer=None), "'pre_tokenizer' is None"),
    "another_pre_tokenizer": (lambda c: c.update(pre_tokenizer={"type": "Metaspace"}), "Metaspace"),
    "prefix_space": (
        lambda c: c.update(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}),
        "neither",
    ),
    "bad_pattern": (
        lambda c: c["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "("}),
        "compiled",
    ),
    "pattern_is_a_list": (
        lambda c: c["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": []}),
        "regular expression",
    ),
    "steps_are_numbers": (lambda c: c["pre_tokenizer"].update(pretokenizers=[5]), "neither"),
    "added_token_without_id": (lambda c: c.update(added_tokens=[{"content": "x"}]), "needs"),
    "added_token_is_text": (lambda c: c.update(added_tokens=["x"]), "needs"),
    "added_token_takes_an_id": (
        lambda c: c.update(added_tokens=[{"content": "<x>", "id": 5}]),
        "taken",
    ),
    "added_token_twice": (
        lambda c: c.update(
            added_tokens=[{"content": "<x>", "id": 9000}, {"content": "<x>", "id": 9001}]
        ),
        "two ids",
    ),
    "added_tokens_is_a_number": (lambda c: c.update(added_tokens=5), "'added_tokens' is 5"),
    "added_token_id_is_huge": (
        lambda c: c.update(added_tokens=[{"content": "<x>", "id": 10**9}]),
        "'<x>' has id 1000000000",
    ),
    "two_ends": (
        lambda c: c.update(
            added_tokens=[
                {"content": n, "id": i, "eos": True} for i, n in ((9000, "<x>"), (9001, "<y>"))
            ]
        ),
        "'<x>', '<y>'.*mark one",
    ),
    "two_added_tokens_one_id": (
        lambda c: c.update(
            added_tokens=[{"content": "<x>", "id": 9000}, {"content": "<y>", "id": 9000}]
        ),
        "share an id",
    ),
    "nested_steps": (lambda c: c.update(pre_tokenizer=deep(300)), None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, trained, tmp_path):
    change, message = HOSTILE[name]
    content = json.loads(json.dumps(trained.to_json()))
    change(content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    if message is None:
        assert BPETokenizer.load(path).encode("a")
        return
    with pytest.raises(ValueError, match=message) as error:
        BPETokenizer.load(path)
    assert "tokenizer.json" in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be used"),
        (b"{", "cannot be used"),
        (b"\xff\xfe\x00garbage", "cannot be used"),
        (b'{"model": {"vocab": {"a": 1, "a": 2}}}', "'a' appears twice"),
        (b"[" * 200_000, "nested too deep|cannot be used"),
        (b'{"a":' * 200_000, "nested too deep|cannot be used"),
        (b"null", "None where an object"),
    ],
)
def test_broken_files(data, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        BPETokenizer.load(path)
    with pytest.raises(ValueError, match="no tokenizer file"):
        BPETokenizer.load(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="no tokenizer file"):
        BPETokenizer.load(tmp_path / "missing")


def test_saving_is_atomic(trained, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    trained.save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        trained.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
