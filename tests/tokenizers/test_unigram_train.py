import itertools
import math
from collections import Counter

import pytest
import sentencepiece

from minillm.data import corpus
from minillm.tokenizers import em_step, train_unigram
from minillm.tokenizers.sentencepiece_model import Rules
from minillm.tokenizers.unigram_train import (
    count_words,
    expected_counts,
    frequent_characters,
    prune,
    readable,
    removal_losses,
    seed_pieces,
)

COUNTS = Counter({"▁low": 5, "▁lower": 2, "▁newest": 6, "▁widest": 3, "▁lowest": 1})


def segmentations(word, scores):
    """Every way to cut `word` into known pieces."""
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [len(word)]
        pieces = [word[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        if all(piece in scores for piece in pieces):
            yield pieces


def em_by_listing(scores, counts):
    """One step of EM with all segmentations written out."""
    expected, likelihood = Counter(), 0.0
    for word, n in counts.items():
        ways = [(w, math.exp(sum(scores[p] for p in w))) for w in segmentations(word, scores)]
        z = sum(weight for _, weight in ways)
        likelihood += n * math.log(z)
        for pieces, weight in ways:
            for piece in pieces:
                expected[piece] += n * weight / z
    return expected, likelihood


def test_expected_counts_equal_brute_force():
    scores = seed_pieces(COUNTS, 40)
    for _ in range(3):
        expected, likelihood = expected_counts(scores, COUNTS)
        exact, exact_likelihood = em_by_listing(scores, COUNTS)
        assert abs(likelihood - exact_likelihood) < 1e-10
        assert all(abs(expected[p] - exact[p]) < 1e-10 for p in scores)
        scores, _ = em_step(scores, COUNTS)
        assert sum(map(math.exp, scores.values())) == pytest.approx(1, abs=1e-12)


def likelihoods(step, n=6):
    words = count_words(corpus.documents("sotu")[0][:700], Rules())
    scores, found = seed_pieces(words, 100), []
    for _ in range(n):
        found.append(expected_counts(scores, words)[1])
        scores = step(scores, words)
    return found


def test_likelihood_never_falls():
    found = likelihoods(lambda scores, words: em_step(scores, words)[0])
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(found)) and found[-1] > found[0] + 5


def wrong_counts_by_best_path(scores, words):
    """Hard EM: it ends elsewhere, and below."""
    from minillm.tokenizers import Unigram

    uses, model = Counter(dict.fromkeys((p for p in scores if len(p) == 1), 1e-6)), Unigram(scores)
    for word, n in words.items():
        for piece in model.best(word):
            uses[piece] += n
    return {p: math.log(n / uses.total()) for p, n in uses.items() if n > 0}


def wrong_ignores_word_counts(scores, words):
    return em_step(scores, dict.fromkeys(words, 1))[0]


def wrong_not_normalized(scores, words):
    return {p: s - 0.5 for p, s in em_step(scores, words)[0].items()}


@pytest.mark.parametrize(
    "wrong", [wrong_counts_by_best_path, wrong_ignores_word_counts, wrong_not_normalized]
)
def test_wrong_steps_are_noticed(wrong):
    right = likelihoods(lambda scores, words: em_step(scores, words)[0])
    found = likelihoods(wrong)
    falls = any(b < a - 1e-6 for a, b in itertools.pairwise(found))
    assert falls or found[-1] < right[-1] - 1


def test_pruning_keeps_what_is_worth_most():
    scores = seed_pieces(COUNTS, 40)
    for _ in range(4):
        scores, _ = em_step(scores, COUNTS)
    losses = removal_losses(scores, COUNTS)
    letters = {p for p in scores if len(p) == 1}
    kept = prune(scores, COUNTS, len(letters) + 3)
    assert letters <= set(kept) and len(kept) == len(letters) + 3
    longer = sorted(losses, key=losses.get)
    assert set(kept) - letters == set(longer[-3:])
    assert sum(map(math.exp, kept.values())) == pytest.approx(1)
    assert all(loss >= 0 for loss in losses.values())


@pytest.fixture(scope="module")
def speeches():
    return [text[:6000] for text in corpus.documents("sotu")[:3]]


def test_a_trained_model_is_read_by_sentencepiece(speeches):
    ours = train_unigram(speeches[:2], 300, n_seeds=700)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=ours.to_bytes())
    assert theirs.vocab_size() == ours.vocab_size <= 300
    for text in [*speeches, "Unseen: 中文 naïve"]:
        assert ours.encode(text) == theirs.encode(text)
    assert all(ours.unknown_id not in ours.encode(line) for line in speeches[0].splitlines())
    assert ours.decode(ours.encode("the government of")) == "the government of"


def test_byte_fallback_and_coverage(speeches):
    ours = train_unigram(speeches[0], 450, coverage=0.99, byte_fallback=True, n_seeds=400)
    assert ours.decode(ours.encode("naïve 中文 Ω")) == "naïve 中文 Ω"
    rare = set("".join(count_words(speeches[0], Rules()))) - set(ours.ids)
    assert rare  # some characters were left to the bytes


def test_parts():
    counts = count_words(["a b  a", "b"], Rules())
    assert counts == {"▁a": 2, "▁b": 2}
    assert frequent_characters({"aab": 2, "c": 1}, 0.5) == {"a"}
    assert readable({"abcab": 2, "xyz": 1}, set("ab")) == {"ab": 4}
    seeds = seed_pieces({"abab": 3}, 1)
    assert set(seeds) == {"a", "b", "ab"}


def test_bad_arguments():
    with pytest.raises(ValueError, match="vocab_size 4 is too small"):
        train_unigram("abc", 4)
    with pytest.raises(ValueError, match="texts must be strings"):
        train_unigram(iter([b"abc"]), 40)
    with pytest.raises(ValueError, match="no word"):
        train_unigram("  \n ", 40)
    for coverage in (0, 1.5):
        with pytest.raises(ValueError, match="coverage"):
            train_unigram("abc", 40, coverage=coverage)
    with pytest.raises(ValueError, match="is no piece"):
        em_step({"a": -1.0}, {"ab": 1})
