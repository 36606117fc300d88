"""BLEU against sacrebleu on random and real strings; named wrong versions must differ."""

import json
import math
import random
import string

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from minillm import assets
from minillm.evaluation import overlap
from minillm.evaluation.overlap import TOKENIZERS, bleu, brevity_penalty, clipped_matches, ngrams

THEIRS = {"13a": Tokenizer13a(), "zh": TokenizerZh(), "char": TokenizerChar()}
SMOOTHING = [("exp", None), ("floor", None), ("floor", 0.03), ("add-k", None), ("add-k", 2),
             ("none", None)]  # fmt: skip
ALPHABET = (
    string.ascii_letters
    + string.digits
    + string.punctuation
    + "  \t\n é—…“”’，。！？、《》你好世界"
    "𠀀〇ａ㈠☀️→\u2000\u2001\u2a6d\u2a6e\u2f80\u2f81\u2fa1\u2fa2\u3040ひカ한"
)


def words(generator, n, vocabulary=12):
    kept = [f"w{i}" for i in range(vocabulary)] + ["U.S.", "3.5", "a,b", "don't", "1-2", "(x)"]
    return " ".join(generator.choice(kept) for _ in range(n))


def corpora(seed, n=7, references=1, shortest=1):
    generator = random.Random(seed)
    longest = generator.choice([3, 9, 20])
    longest = max(longest, shortest)
    refs = [[words(generator, generator.randint(shortest, longest)) for _ in range(references)]
            for _ in range(n)]  # fmt: skip
    hyps = []
    for row in refs:
        tokens = generator.choice(row).split()
        kept = [t for t in tokens if generator.random() < 0.8] or tokens[:1]
        if generator.random() < 0.3:
            generator.shuffle(kept)
        hyps.append(" ".join(kept + (["w0"] if generator.random() < 0.3 else [])))
    return hyps, refs


def theirs(hyps, refs, **options):
    streams = list(map(list, zip(*refs, strict=True)))
    return sacrebleu.BLEU(**options).corpus_score(hyps, streams)


def assert_equal(ours, expected):
    assert ours.score == pytest.approx(expected.score, abs=1e-9)
    assert ours.precisions == pytest.approx(expected.precisions, abs=1e-9)
    assert ours.brevity_penalty == pytest.approx(expected.bp, abs=1e-12)
    assert (ours.hypothesis_length, ours.reference_length) == (expected.sys_len, expected.ref_len)


@pytest.mark.parametrize("smoothing", SMOOTHING, ids=str)
@pytest.mark.parametrize("tokenize", ["13a", "zh", "char", "none"])
@pytest.mark.parametrize("effective", [False, True])
def test_equals_sacrebleu_on_random_corpora(smoothing, tokenize, effective):
    method, value = smoothing
    for seed in range(40):
        hyps, refs = corpora(seed, references=1 + seed % 3)
        ours = bleu(hyps, refs, tokenize=tokenize, smoothing=method, smooth_value=value,
                    effective_order=effective, lowercase=seed % 2 == 0)  # fmt: skip
        expected = theirs(hyps, refs, tokenize=tokenize, smooth_method=method, smooth_value=value,
                          effective_order=effective, lowercase=seed % 2 == 0)  # fmt: skip
        assert_equal(ours, expected)


@pytest.mark.parametrize("max_n", [1, 2, 3, 6])
def test_other_orders(max_n):
    for seed in range(20):
        hyps, refs = corpora(seed)
        assert_equal(bleu(hyps, refs, max_n=max_n), theirs(hyps, refs, max_ngram_order=max_n))


def test_equals_sacrebleu_on_single_sentences():
    for seed in range(300):
        hyps, refs = corpora(seed, n=1, references=2)
        expected = sacrebleu.sentence_bleu(hyps[0], refs[0])
        assert_equal(bleu(hyps, refs, effective_order=True), expected)


@settings(max_examples=600, deadline=None)
@given(st.text(ALPHABET, max_size=30) | st.text(max_size=12))
def test_tokenizers_equal_sacrebleus(text):
    for name, cut in THEIRS.items():
        assert TOKENIZERS[name](text) == cut(text.rstrip()).split(), name


def test_every_character_is_cut_as_by_sacrebleu():
    for code in [*range(0xD800), *range(0xE000, 0x10000), 0x20000, 0x2A6D6, 0x2F800, 0x1F600]:
        text = f"a{chr(code)}b"
        assert TOKENIZERS["zh"](text) == THEIRS["zh"](text).split(), hex(code)


def test_equals_sacrebleu_on_real_sentences():
    rows = json.loads(assets.fetch("zh-en").read_text("utf-8"))
    generator = random.Random(0)
    for side, tokenize in (
        (lambda r: r["translation"]["en"], "13a"),
        (lambda r: r["chinese"], "zh"),
    ):
        refs = [[side(row)] for row in rows]
        hyps = [side(rows[min(i + generator.choice([0, 0, 1]), len(rows) - 1)])
                for i in range(len(rows))]  # fmt: skip
        ours = bleu(hyps, refs, tokenize=tokenize)
        assert 30 < ours.score < 95
        assert_equal(ours, theirs(hyps, refs, tokenize=tokenize))
        for hypothesis, reference in zip(hyps[:500], refs, strict=False):
            expected = sacrebleu.sentence_bleu(hypothesis, reference, tokenize=tokenize)
            mine = bleu([hypothesis], [reference], tokenize=tokenize, effective_order=True)
            assert mine.score == pytest.approx(expected.score, abs=1e-9)


# --- named wrong versions ----------------------------------------------------------------------


def _unclipped(hypothesis, references, max_n=4):
    known = set().union(*(ngrams(r, max_n) for r in references))
    matches, totals = [0] * max_n, [0] * max_n
    for ngram, count in ngrams(hypothesis, max_n).items():
        totals[len(ngram) - 1] += count
        matches[len(ngram) - 1] += count * (ngram in known)
    return matches, totals


def _summed_references(hypothesis, references, max_n=4):
    joined = sum((ngrams(r, max_n) for r in references), start=ngrams([], max_n))
    matches, totals = [0] * max_n, [0] * max_n
    for ngram, count in ngrams(hypothesis, max_n).items():
        totals[len(ngram) - 1] += count
        matches[len(ngram) - 1] += min(count, joined[ngram])
    return matches, totals


def _set_of_ngrams(hypothesis, references, max_n=4):
    known = set().union(*(ngrams(r, max_n) for r in references))
    matches, totals = [0] * max_n, [0] * max_n
    for ngram in ngrams(hypothesis, max_n):
        totals[len(ngram) - 1] += 1
        matches[len(ngram) - 1] += ngram in known
    return matches, totals


WRONG_PARTS = {
    "no_clipping": ("clipped_matches", _unclipped),
    "references_summed_not_maximum": ("clipped_matches", _summed_references),
    "counts_each_ngram_once": ("clipped_matches", _set_of_ngrams),
    "no_brevity_penalty": ("brevity_penalty", lambda c, r: 1.0),
    "penalty_upside_down": ("brevity_penalty", lambda c, r: 1.0 if c >= r else math.exp(1 - c / r)),
    "penalty_for_long_ones": ("brevity_penalty", lambda c, r: min(1.0, math.exp(1 - c / r))),
    "ratio_not_exponential": ("brevity_penalty", lambda c, r: min(1.0, c / r)),
}


def _mean_of_sentences(hyps, refs):
    scores = [bleu([h], [r], effective_order=True).score for h, r in zip(hyps, refs, strict=True)]
    return sum(scores) / len(scores)


def _arithmetic_mean(hyps, refs):
    found = bleu(hyps, refs)
    return found.brevity_penalty * sum(found.precisions) / 4


WRONG_SCORES = {
    "mean_of_sentence_scores": _mean_of_sentences,
    "arithmetic_mean": _arithmetic_mean,
    "split_at_blanks": lambda h, r: bleu(h, r, tokenize="none").score,
    "unsmoothed": lambda h, r: bleu(h, r, smoothing="none").score,
    "first_reference_only": lambda h, r: bleu(h, [x[:1] for x in r]).score,
}


@pytest.mark.parametrize("name", [*WRONG_PARTS, *WRONG_SCORES])
def test_wrong_version_is_rejected(name, monkeypatch):
    if name in WRONG_PARTS:
        monkeypatch.setattr(overlap, *WRONG_PARTS[name])
    wrong = WRONG_SCORES.get(name, lambda h, r: bleu(h, r).score)
    gaps = []
    for seed in range(30):
        hyps, refs = corpora(seed, n=1 + seed % 5, references=2)
        hyps[0] += " w0 w0 w0 w1 w1" * (seed % 3)
        gaps.append(abs(wrong(hyps, refs) - theirs(hyps, refs).score))
    assert max(gaps) > 0.1, f"{name} goes unnoticed"


# --- by hand, and errors -------------------------------------------------------------------------


def test_the_papers_example():
    matches, totals = clipped_matches(["the", "the", "the", "the", "the", "the", "the"],
                                      [["the", "cat", "is", "on", "the", "mat"]])  # fmt: skip
    assert (matches[0], totals[0]) == (2, 7)
    assert brevity_penalty(10, 12) == pytest.approx(math.exp(-0.2))


def test_extremes():
    assert bleu(["a b c d e"], ["a b c d e"]).score == pytest.approx(100)
    assert bleu([""], ["a b"]).score == 0
    assert bleu(["x y"], ["a b"]).score == 0
    assert bleu(["a b"], ["a b"]).score == 0, "no 4-gram at all: use effective_order"
    assert bleu(["a b"], ["a b"], effective_order=True).score == pytest.approx(100)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("a b", ["a b"]), {}, "one string"),
        ((["a"], ["a", "b"]), {}, "1 hypotheses and 2"),
        (([], []), {}, "at least one"),
        ((["a"], [[]]), {}, "no reference"),
        ((["a"], ["a"]), {"tokenize": "intl"}, "'intl'"),
        ((["a"], ["a"]), {"smoothing": "add"}, "'add'"),
        ((["a"], ["a"]), {"max_n": 0}, "max_n is 0"),
    ],
)
def test_errors_name_the_value(arguments, options, message):
    with pytest.raises(Exception, match=message):
        bleu(*arguments, **options)
