"""Add-k and Kneser-Ney against nltk: every context of every length, every token."""

import itertools
import random

import pytest
from nltk.lm import KneserNeyInterpolated, Lidstone
from nltk.util import everygrams

from minillm.models.ngram import AddK, KneserNey

VOCAB, ATOL = 7, 1e-12


def text(n=400, seed=3):
    """A skewed stream that ends as it begins.

    nltk counts the followers of a context by raw counts, but continuations by what stands before
    them; the two disagree on n-grams that nothing precedes, and this stream has none.
    """
    rng = random.Random(seed)
    ids = [min(int(rng.expovariate(0.4)), VOCAB - 2) for _ in range(n)]
    return ids + ids[:4]


def nltk_of(model, ids, order):
    grams = [tuple(map(str, gram)) for gram in everygrams(ids, max_len=order)]
    model.fit([grams], vocabulary_text=[str(i) for i in range(VOCAB - 1)])  # and its <UNK>
    return model


def largest_error(ours, oracle, order):
    worst = 0.0
    for n in range(order):
        for context in itertools.product(range(VOCAB - 1), repeat=n):
            p = ours.distribution(context)
            for token in range(VOCAB - 1):
                expected = oracle.score(str(token), [str(c) for c in context])
                worst = max(worst, abs(p[token].item() - expected))
                worst = max(worst, abs(ours.probability(token, context) - expected))
    return worst


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_add_k(order, record):
    ids = text()
    ours = AddK(order, VOCAB, 0.3).fit(ids)
    error = largest_error(ours, nltk_of(Lidstone(0.3, order), ids, order), order)
    record("n-gram, add-k", "nltk.lm.Lidstone", f"probabilities, order {order}", error)
    assert error < ATOL


@pytest.mark.parametrize("order", [2, 3, 4])
def test_kneser_ney(order, record):
    ids = text()
    ours = KneserNey(order, VOCAB, 0.6, uniform=False).fit(ids)
    oracle = nltk_of(KneserNeyInterpolated(order, 0.6), ids, order)
    error = largest_error(ours, oracle, order)
    oracle_name = "nltk.lm.KneserNeyInterpolated"
    record("n-gram, Kneser-Ney", oracle_name, f"probabilities, order {order}", error)
    assert error < ATOL


class RawCounts(KneserNey):
    """Wrong: lower orders from raw counts (absolute discounting)."""

    def fit(self, tokens):
        super().fit(tokens)
        levels = [KneserNey(n, VOCAB, self.discount).fit(tokens) for n in range(1, self.order)]
        for n, level in enumerate(levels):
            self._counts[n], self._totals[n] = level._counts[n], level._totals[n]
        return self


class NoBackOffMass(KneserNey):
    """Wrong: the discounted mass is spread as 1 − Σ, over the seen tokens only."""

    def distribution(self, context=()):
        p = super().distribution(context)
        h = tuple(context)[-(self.order - 1) :]
        seen = self._counts[len(h)].get(h)
        if not seen:
            return p
        q = p * 0
        q[list(seen)] = p[list(seen)]
        return q / q.sum()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RawCounts(3, VOCAB, 0.6, uniform=False),
        lambda: NoBackOffMass(3, VOCAB, 0.6, uniform=False),
        lambda: KneserNey(3, VOCAB, 0.6, uniform=True),
        lambda: KneserNey(3, VOCAB, 0.5, uniform=False),
        lambda: KneserNey(2, VOCAB, 0.6, uniform=False),
    ],
    ids=["raw_lower_orders", "no_mass_for_the_unseen", "other_base", "other_discount", "order - 1"],
)
def test_wrong_versions_are_rejected(wrong):
    ids = text()
    oracle = nltk_of(KneserNeyInterpolated(3, 0.6), ids, 3)
    assert largest_error(wrong().fit(ids), oracle, 3) > 1e-4
