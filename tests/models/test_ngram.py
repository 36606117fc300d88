"""N-grams against nltk, the definition, and the sum over the vocabulary."""

import itertools
import math
import random
import subprocess
import sys

import pytest
import torch
from nltk.lm import KneserNeyInterpolated, Lidstone
from nltk.util import everygrams

from minillm.models.ngram import AddK, KneserNey

VOCAB = 9


def stream(n=150, seed=0, used=VOCAB - 2):
    """A skewed stream over 0 … used − 1 (the rest is never seen) that ends as it begins.

    nltk counts followers of a context by raw counts, and continuations by what stands before them.
    The two disagree on n-grams that nothing precedes; ending as it begins, the stream has none.
    """
    rng = random.Random(seed)
    tokens = [min(int(rng.expovariate(0.5)), used - 1) for _ in range(n)]
    return tokens + tokens[:4]


def fit_nltk(model, tokens, order):
    grams = list(everygrams(tokens, max_len=order))
    model.fit([[tuple(map(str, gram)) for gram in grams]], vocabulary_text=list(map(str, range(8))))
    return model  # 8 words and <UNK>: 9 entries


def contexts(longest):
    for n in range(longest + 1):
        yield from itertools.product(range(0, VOCAB - 1, 2), repeat=n)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("k", [0.01, 1.0])
def test_add_k_equals_nltk(order, k):
    tokens = stream()
    oracle = fit_nltk(Lidstone(k, order), tokens, order)
    ours = AddK(order, VOCAB, k).fit(tokens)
    for context in contexts(order - 1):
        for token in range(VOCAB - 1):
            expected = oracle.score(str(token), list(map(str, context)))
            assert ours.probability(token, context) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("discount", [0.1, 0.75])
def test_kneser_ney_equals_nltk(order, discount):
    tokens = stream(seed=order)
    oracle = fit_nltk(KneserNeyInterpolated(order, discount), tokens, order)
    ours = KneserNey(order, VOCAB, discount, uniform=False).fit(tokens)
    for context in contexts(order - 1):
        for token in range(VOCAB - 1):
            expected = oracle.score(str(token), list(map(str, context)))
            assert ours.probability(token, context) == pytest.approx(expected, abs=1e-12)


def each_model():
    for order in (1, 2, 3, 4):
        yield AddK(order, VOCAB, 0.3)
        yield KneserNey(order, VOCAB, 0.4)
        if order > 1:
            yield KneserNey(order, VOCAB, 0.4, uniform=False)


MODELS = list(each_model())


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{type(m).__name__}-{m.order}")
@pytest.mark.parametrize("closed", [True, False])
def test_every_context_sums_to_one(model, closed):
    tokens = stream() if closed else [8, *stream(n=40, seed=1)]  # 8 stands at the start only
    model.fit(tokens)
    for context in contexts(model.order - 1):
        p = model.distribution(context)
        assert p.sum().item() == pytest.approx(1, abs=1e-12)
        each = [model.probability(token, context) for token in range(VOCAB)]
        torch.testing.assert_close(p, torch.tensor(each, dtype=torch.float64), atol=1e-15, rtol=0)
        if getattr(model, "uniform", True):
            assert min(each) > 0


def test_nltk_does_not_sum_to_one_where_nothing_precedes():
    """Why `stream` is closed: on an open text the reference itself is off, and ours is not."""
    tokens = [8, *stream(n=40, seed=1)]
    grams = [tuple(map(str, gram)) for gram in everygrams(tokens, max_len=3)]
    oracle = KneserNeyInterpolated(3, 0.4)
    oracle.fit([grams], vocabulary_text=list(map(str, range(9))))
    sums = []
    for c in range(9):
        try:
            sums.append(sum(oracle.score(str(w), [str(c)]) for w in range(9)))
        except ZeroDivisionError:  # nothing ever stood before the context
            sums.append(math.inf)
    assert max(abs(s - 1) for s in sums) > 1e-3
    ours = KneserNey(3, VOCAB, 0.4, uniform=False).fit(tokens)
    assert all(abs(ours.distribution([c]).sum() - 1) < 1e-12 for c in range(9))


def test_by_hand():
    """a b a c a b with D = ½: p(b | a) by pencil."""
    a, b, c = 0, 1, 2
    model = KneserNey(2, 3, 0.5, uniform=False).fit([a, b, a, c, a, b])
    # c(a b) = 2, c(a c) = 1, so c(a) = 3 and two kinds of follower. Bigram types: ab ba ac ca, so
    # a was preceded by two kinds of token and b and c by one each: 2/4, 1/4, 1/4.
    assert model.probability(b, [a]) == pytest.approx(1.5 / 3 + 0.5 * 2 / 3 * 1 / 4)
    assert model.probability(a, [a]) == pytest.approx(0.5 * 2 / 3 * 2 / 4)
    assert AddK(2, 3, 1.0).fit([a, b, a, c, a, b]).probability(b, [a]) == pytest.approx(3 / 6)


def test_wrong_version_raw_lower_orders_is_caught():
    """Interpolated absolute discounting is not Kneser-Ney: its lower orders are raw counts."""
    tokens = [0, 1] * 20 + [2, 3, 4, 3, 5, 3, 6, 3] + [0, 1, 0, 1]
    oracle = fit_nltk(KneserNeyInterpolated(2, 0.5), tokens, 2)
    ours = KneserNey(2, VOCAB, 0.5, uniform=False).fit(tokens)
    raw_share = tokens.count(1) / len(tokens)
    assert ours.probability(1) == pytest.approx(oracle.score("1"))
    assert ours.probability(1) < raw_share / 2  # 1 is frequent, but stands after 0 only
    assert ours.probability(3) > ours.probability(1)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{type(m).__name__}-{m.order}")
def test_nll_is_the_sum_over_tokens_and_calls_agree(model):
    model.fit(stream())
    tokens = [1, 0, 0, 2, 1, 3]
    by_hand = -sum(
        math.log(model.probability(tokens[j], tokens[:j])) for j in range(1, len(tokens))
    )
    assert model.nll(tokens) == pytest.approx(by_hand, abs=1e-12)
    log_p = model(torch.tensor([tokens]))
    picked = log_p[0, :-1].gather(1, torch.tensor(tokens[1:])[:, None])
    assert -picked.sum().item() == pytest.approx(by_hand, abs=1e-12)


def test_more_context_helps_on_seen_text_and_smoothing_on_unseen():
    text = list(b"the cat sat on the mat and the rat sat on the hat " * 3)
    unseen = list(b"the bat sat on the cat")
    nll = {n: KneserNey(n, 256).fit(text).nll(text) for n in (1, 2, 3, 4)}
    assert nll[1] > nll[2] > nll[3] > nll[4]
    assert KneserNey(3, 256).fit(text).nll(unseen) < AddK(3, 256, 1.0).fit(text).nll(unseen)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AddK(0, 5), "order is 0"),
        (lambda: KneserNey(2, 0), "vocab_size is 0"),
        (lambda: AddK(2, 5, 0.0), "k is 0"),
        (lambda: AddK(2, 5, math.inf), "k is inf"),
        (lambda: AddK(2, 5, math.nan), "k is nan"),
        (lambda: KneserNey(2, 5, 1.0), "discount is 1.0"),
        (lambda: KneserNey(2, 5).probability(1), "counted nothing"),
        (lambda: KneserNey(3, 5).fit([1, 2]), "2 tokens hold no 3-gram"),
        (lambda: AddK(1, 5).fit([1, 5]), "token id 5 is outside"),
        (lambda: AddK(1, 5).fit([1, -2]), "token id -2 is outside"),
        (lambda: AddK(1, 5).fit([1, 2]).probability(7), "token id 7 is outside"),
        (lambda: AddK(1, 5).fit([1, 2]).nll([1]), "nothing to predict"),
        (lambda: AddK(1, 5).fit([1, 2])(torch.zeros(0, 3).long()), r"tokens are \(0, 3\)"),
        (lambda: AddK(1, 5).fit([1, 2])(torch.zeros(2, 0).long()), r"tokens are \(2, 0\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


UNTYPED = """
import numpy as np, torch
from minillm.models.ngram import AddK, KneserNey
model = AddK(2, 5).fit(np.array([1, 2, 3]))
assert model.probability(np.int64(2), [np.int64(1)]) == model.probability(2, [1])
for make, message in [
    (lambda: AddK(2.5, 5), "order is 2.5; give a whole number"),
    (lambda: KneserNey(True, 5), "order is True"),
    (lambda: KneserNey(2, 5.0), "vocab_size is 5.0"),
    (lambda: AddK(1, 5).fit([1, 2.0]), "token id 2.0 is not a whole number"),
    (lambda: AddK(1, 5).fit([1, True]), "token id True is not"),
    (lambda: AddK(1, 5).fit(torch.rand(3).bool()), "is not a whole number"),
    (lambda: AddK(1, 5).fit(torch.ones(3)), "token id 1.0 is not"),
    (lambda: AddK(1, 5).fit(torch.ones(3, 2).long()), "token id [1, 1] is not"),
    (lambda: AddK(1, 5).fit("123"), "token id '1' is not"),
    (lambda: model.probability(1.0), "token id 1.0 is not"),
    (lambda: model.distribution([1.5]), "token id 1.5 is not"),
    (lambda: model([[1, 2]]), "tokens are list"),
    (lambda: model(torch.tensor([1, 2])), "tokens are (2,)"),
]:
    try:
        make()
    except ValueError as error:
        assert message in str(error), (message, str(error))
    else:
        raise AssertionError(f"no error for {message}")
"""


def test_mistakes_where_nothing_checks_types_at_run_time():
    subprocess.run([sys.executable, "-c", UNTYPED], check=True)
