import random
from dataclasses import replace

import pytest
import sentencepiece

from minillm import assets
from minillm.tokenizers import SentencePieceTokenizer
from minillm.tokenizers.sentencepiece import Normalizer
from minillm.tokenizers.sentencepiece_model import Kind, Method, Piece, Rules, SentencePieceModel

TEST_MODELS = (
    "botchan_en_bpe_1000.model",
    "botchan_en_unigram_1000.model",
    "kyoto_ja_unigram_8000.model",
)


def model_path(name):
    if name == "mistral":
        return assets.fetch("mistral-spm")
    return assets.fetch("sentencepiece-test") / name


@pytest.fixture(scope="module", params=[*TEST_MODELS, "mistral"])
def pair(request):
    """Our tokenizer and SentencePiece's, from the same file."""
    path = model_path(request.param)
    ours = SentencePieceTokenizer.from_model(path)
    return ours, sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.fixture(scope="module")
def unigram():
    path = model_path("botchan_en_unigram_1000.model")
    ours = SentencePieceTokenizer.from_model(path)
    return ours, sentencepiece.SentencePieceProcessor(model_file=str(path))


def theirs_of(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model.to_bytes())


QUARTER = {
    (1000, Method.BPE): 0,
    (1000, Method.UNIGRAM): 1,
    (8000, Method.UNIGRAM): 2,
    (32000, Method.BPE): 3,
}


def test_ids_equal_on_40000_strings(pair, strings):
    """Each model takes its quarter of them, and all take the adversarial ones at the front."""
    ours, theirs = pair
    strings = strings[:24] + strings[QUARTER[ours.vocab_size, ours.model.method] :: 4]
    for text, ids in zip(strings, theirs.encode(strings), strict=True):
        assert ours.encode(text) == ids, repr(text)


def test_ids_equal_on_long_text(pair):
    ours, theirs = pair
    text = (assets.fetch("sentencepiece-test") / "botchan.txt").read_text(encoding="utf-8")
    assert len(text) > 250_000  # past the place where 32-bit scores are counted anew
    text = text if ours.model.method is Method.UNIGRAM else text[:30_000]
    assert ours.encode(text) == theirs.encode(text)


def test_text_equal_for_any_ids(pair, strings):
    ours, theirs = pair
    draw, n = random.Random(0), len(ours.model.pieces)
    batch = theirs.encode(strings[:1500])
    for _ in range(1500):  # half of them among the bytes and the control pieces
        pool = [draw.randrange(n if draw.random() < 0.5 else min(n, 300)) for _ in range(8)]
        batch.append(pool[: draw.randrange(9)])
    for ids, text in zip(batch, theirs.decode(batch), strict=True):
        assert ours.decode(ids) == text, ids
        assert "".join(ours.decode_stream(ids)) == text


def test_normalization_equal(pair, strings):
    ours, theirs = pair
    for text in strings[:2000]:
        assert ours.normalize(text) == theirs.normalize(text), repr(text)
    assert ours.split("a b") == [theirs.normalize("a b")]


def test_byte_fallback_gives_every_text_back(strings):
    ours = SentencePieceTokenizer.from_model(model_path("mistral"))
    assert ours.model.byte_fallback
    for text in strings[:1500]:
        if "▁" not in text and not text.startswith(" "):
            assert ours.decode(ours.encode(text)) == text
    byte = ours.byte_ids[0xE4]
    assert ours.decode([byte]) == "\ufffd"
    with pytest.raises(UnicodeDecodeError):
        ours.decode([byte], errors="strict")


def wrong_no_dummy_prefix(model):
    return replace(model, rules=replace(model.rules, dummy_prefix=False))


def wrong_keeps_extra_blanks(model):
    return replace(model, rules=replace(model.rules, remove_extra_blanks=False))


def wrong_no_normalization(model):
    return replace(model, rules=replace(model.rules, charsmap=b""))


def wrong_method(model):
    return replace(model, method=Method.BPE)


@pytest.mark.parametrize(
    "wrong",
    [wrong_no_dummy_prefix, wrong_keeps_extra_blanks, wrong_no_normalization, wrong_method],
)
def test_wrong_conventions_are_noticed(wrong, unigram, strings):
    ours, theirs = unigram
    other = SentencePieceTokenizer(wrong(ours.model))
    texts = ["ab  cd", " ab", "ｆｕｌｌ", "the government", *strings[:500]]
    assert any(other.encode(text) != theirs.encode(text) for text in texts)


def test_unknown_characters_in_a_row_are_one(unigram):
    ours, theirs = unigram
    ids = ours.encode("a 中文字 b")
    assert ids == theirs.encode("a 中文字 b") and ids.count(ours.unknown_id) == 1
    assert ours.decode(ids) == "a  \u2047  b" == theirs.decode(ids)


def scores_for(method):
    """A small vocabulary with every kind of piece, whose scores tie often."""
    texts = ["▁", "a", "b", "c", "ab", "bc", "abc", "▁a", "▁ab", "aa", "aaa", "cc", "ca", "bb"]
    pieces = [Piece("<unk>", 0.0, Kind.UNKNOWN), Piece("<s>", 0.0, Kind.CONTROL)]
    pieces += [Piece("</s>", 0.0, Kind.CONTROL), Piece("cab", 0.0, Kind.USER_DEFINED)]
    pieces += [Piece("b▁c", 0.0, Kind.USER_DEFINED), Piece("bcb", -2.0, Kind.UNUSED)]
    score = (lambda i: -float(i)) if method is Method.BPE else (lambda i: -1.0 - i % 3)
    return pieces + [Piece(text, score(i)) for i, text in enumerate(texts)]


@pytest.mark.parametrize("method", [Method.BPE, Method.UNIGRAM])
@pytest.mark.parametrize("suffix", [False, True])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_every_kind_of_piece(method, suffix, byte_fallback):
    pieces = scores_for(method)
    if byte_fallback:
        pieces += [Piece(f"<0x{b:02X}>", 0.0, Kind.BYTE) for b in range(256)]
    for flags in range(4):
        rules = Rules(dummy_prefix=bool(flags & 1), remove_extra_blanks=bool(flags & 2))
        model = SentencePieceModel(
            tuple(pieces), method, rules, byte_fallback=byte_fallback, blank_as_suffix=suffix
        )
        ours, theirs = SentencePieceTokenizer(model), theirs_of(model)
        draw = random.Random(flags)
        for _ in range(200):
            text = "".join(draw.choices("aaabbbccc  ▁xé<s>", k=draw.randrange(1, 14)))
            ids = theirs.encode(text)
            assert ours.encode(text) == ids, repr(text)
            assert ours.decode(ids) == theirs.decode(ids)


def test_n_best_equal(unigram):
    ours, theirs = unigram
    checked = 0
    for text in ("government", "I was a teacher", "unbelievably", "今 day", "a", "the  redcoats"):
        found = ours.n_best(text, 12)
        assert found[0][0] == ours.encode(text)
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
        their_ids = theirs.nbest_encode_as_ids(text, 12)
        for (ids, score), other in zip(found[:10], their_ids[:10], strict=False):
            near = [abs(score - s) < 1e-4 for s in scores]
            if sum(near) == 1:  # paths that tie may come in either order
                assert ids == other, text
                checked += 1
    assert checked > 40


def test_sampling_follows_the_model(unigram):
    """The law of the samples is p^α / Z, by χ² over all segmentations; SentencePiece's too."""
    ours, theirs = unigram
    text, alpha, n = "think", 0.2, 3000
    paths = ours.n_best(text, 1000)
    weights = {tuple(ids): 2.718281828459045 ** (alpha * score) for ids, score in paths}
    total, rng = sum(weights.values()), random.Random(5)
    seen = [tuple(ours.sample(text, alpha=alpha, rng=rng)) for _ in range(n)]
    sentencepiece.set_random_generator_seed(7)
    other = [
        tuple(theirs.encode(text, enable_sampling=True, alpha=alpha, nbest_size=-1))
        for _ in range(n)
    ]
    assert len(weights) > 4
    for draws in (seen, other):
        counts = [(draws.count(ids), n * weight / total) for ids, weight in weights.items()]
        chi2 = sum((found - wanted) ** 2 / wanted for found, wanted in counts)
        assert chi2 < len(weights) + 5 * len(weights) ** 0.5
    sharp = [tuple(ours.sample(text, alpha=1.0, rng=rng)) for _ in range(n)]
    counts = [(sharp.count(ids), n * weight / total) for ids, weight in weights.items()]
    assert sum((found - wanted) ** 2 / wanted for found, wanted in counts) > 3 * len(weights)


def test_bpe_dropout():
    ours = SentencePieceTokenizer.from_model(model_path("botchan_en_bpe_1000.model"))
    rng = random.Random(0)
    text = "the government was there"
    assert ours.sample(text, alpha=0, rng=rng) == ours.encode(text)
    letters = ours.sample(text, alpha=1, rng=rng)
    assert len(letters) == len(ours.normalize(text))
    middle = [len(ours.sample(text, alpha=0.3, rng=rng)) for _ in range(50)]
    assert len(ours.encode(text)) < sum(middle) / 50 < len(letters)
    assert all(ours.decode(ours.sample(text, alpha=0.5, rng=rng)) == text for _ in range(20))
    with pytest.raises(ValueError, match="BPE, not UNIGRAM"):
        ours.n_best(text, 3)
    with pytest.raises(ValueError, match="alpha is -1"):
        ours.sample(text, alpha=-1, rng=rng)


def test_a_written_model_is_read_by_sentencepiece(pair, strings, tmp_path):
    ours, theirs = pair
    ours.save(tmp_path)
    written = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert written.encode(strings[:1000]) == theirs.encode(strings[:1000])
    assert SentencePieceTokenizer.load(tmp_path).model == ours.model


def test_special_pieces_do_not_come_from_text(pair):
    ours, theirs = pair
    assert not set(ours.encode("<s> </s> a")) & {ours.special_tokens["<s>"], ours.eos_id}
    assert ours.encode("a</s>", allowed_special={"</s>"})[-1] == ours.eos_id == theirs.eos_id()
    with pytest.raises(ValueError, match="rewrites text"):
        ours.spans("a b")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="no SentencePiece model"):
        SentencePieceTokenizer.from_model(tmp_path / "none.model")
    words = SentencePieceModel((Piece("<unk>", 0.0, Kind.UNKNOWN), Piece("a")), Method.WORD)
    with pytest.raises(ValueError, match="WORD; only UNIGRAM and BPE"):
        SentencePieceTokenizer(words)
    with pytest.raises(ValueError, match=r"\.model"):
        SentencePieceTokenizer.from_json({})


def test_normalizer_alone():
    assert Normalizer(Rules())("  a  b ") == "▁a▁b"
    assert Normalizer(Rules(escape_blanks=False))(" a  b") == " a b"
    assert Normalizer(Rules(remove_extra_blanks=False))("a  b ") == "▁a▁▁b▁"
    assert Normalizer(Rules(), ["  "])("a  b") == "▁a▁▁b"
    assert Normalizer(Rules(), blank_as_suffix=True)("a b") == "a▁b▁"
    assert Normalizer(Rules())("   ") == ""
