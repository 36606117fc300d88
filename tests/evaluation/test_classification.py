"""Classification scores against scikit-learn, seqeval and scipy."""

import math
import warnings

import pytest
import torch
from scipy.stats import binomtest
from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn import metrics

from minillm.evaluation.classification import (
    accuracy,
    average_scores,
    bio_spans,
    bootstrap_interval,
    class_scores,
    confusion_matrix,
    span_scores,
    wilson_interval,
)


def drawn(seed, k=4, n=83):
    """Targets and predictions of k classes, the last two of which may be missing from either."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([5.0, 3.0, 1.0, 0.05])[:k]
    return tuple(torch.multinomial(weights, n, True, generator=generator) for _ in range(2))


@pytest.mark.parametrize("seed", range(6))
def test_matrix_and_scores_equal_scikit_learn(seed):
    targets, predictions = drawn(seed)
    matrix = confusion_matrix(targets, predictions, 4)
    expected = metrics.confusion_matrix(targets, predictions, labels=range(4))
    assert torch.equal(matrix, torch.tensor(expected))
    expected = metrics.accuracy_score(targets, predictions)
    assert accuracy(matrix) == pytest.approx(expected, abs=1e-12)
    for average in (None, "macro", "weighted", "micro"):
        scores = class_scores(matrix) if average is None else average_scores(matrix, average)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = metrics.precision_recall_fscore_support(
                targets, predictions, labels=range(4), average=average, zero_division=0.0
            )
        for ours, wanted in zip(scores, theirs, strict=False):
            assert ours.tolist() == pytest.approx(wanted, abs=1e-12), average


def test_a_class_never_predicted_and_one_never_there_score_zero():
    matrix = confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 0]), 3)
    scores = class_scores(matrix)
    assert scores.precision.tolist() == [0.5, 0.0, 0.0]
    assert scores.recall.tolist() == [0.5, 0.0, 0.0]
    assert not any(s.isnan().any() for s in scores)


WRONG = {
    "transposed": lambda m: class_scores(m.T).precision,
    "accuracy_for_precision": lambda m: torch.full((len(m),), accuracy(m)),
    "columns_for_rows": lambda m: m.diagonal() / m.sum(1),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_precision_is_noticed(name):
    targets, predictions = drawn(0)
    right = metrics.precision_score(
        targets, predictions, average=None, labels=range(4), zero_division=0.0
    )
    wrong = WRONG[name](confusion_matrix(targets, predictions, 4))
    assert not wrong.double().allclose(torch.tensor(right), atol=1e-3)


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 10), (801, 872), (1, 1)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_interval_equals_scipy(hits, n, level):
    interval = wilson_interval(hits, n, level)
    theirs = binomtest(hits, n).proportion_ci(level, method="wilson")
    assert interval.low == pytest.approx(theirs.low, abs=1e-12)
    assert interval.high == pytest.approx(theirs.high, abs=1e-12)


def test_wilson_interval_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    for truth in (0.5, 0.95):
        hits = (torch.rand(2000, 90, generator=generator) < truth).sum(1).tolist()
        inside = [a <= truth <= b for a, b in (wilson_interval(h, 90) for h in hits)]
        assert abs(sum(inside) / 2000 - 0.95) < 0.025


def test_bootstrap_of_a_mean_is_about_two_standard_errors_wide():
    sample = torch.randn(400, generator=torch.Generator().manual_seed(1))
    low, high = bootstrap_interval(lambda x: x.mean().item(), sample)
    error = sample.std().item() / math.sqrt(400)
    assert low < sample.mean() < high
    assert (high - low) / error == pytest.approx(2 * 1.96, rel=0.12)


def test_bootstrap_keeps_pairs_together():
    x = torch.randn(60, generator=torch.Generator().manual_seed(2))
    assert bootstrap_interval(lambda a, b: (a - b).mean().item(), x, x + 1) == pytest.approx(
        (-1, -1), abs=1e-6
    )


def tag_rows(seed):
    generator = torch.Generator().manual_seed(seed)
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    rows = torch.randint(5, (20, 9), generator=generator).tolist()
    return [[names[i] for i in row] for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_spans_equal_seqeval(seed):
    targets, predictions = tag_rows(seed), tag_rows(seed)
    for row, other in zip(predictions, tag_rows(seed + 100), strict=True):
        row[3:6] = other[3:6]
    scores = span_scores(targets, predictions)
    for score, theirs in zip(scores, (precision_score, recall_score, f1_score), strict=True):
        assert score.item() == pytest.approx(theirs(targets, predictions), abs=1e-12)


def test_spans_by_hand():
    assert bio_spans(["B-X", "I-X", "O", "I-Y", "I-X", "B-X"]) == {
        ("X", 0, 2), ("Y", 3, 4), ("X", 4, 5), ("X", 5, 6),
    }  # fmt: skip
    half = span_scores([["B-X", "I-X"]], [["B-X", "O"]])
    assert half.f1 == 0, "half a name is no name, though 1 of 2 tags is right"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: confusion_matrix(torch.tensor([0, -100]), torch.tensor([0, 1]), 2), "-100 to 0"),
        (lambda: wilson_interval(3, 2), "3 of 2"),
        (lambda: bootstrap_interval(float, torch.ones(2), torch.ones(3)), "2, 3"),
        (lambda: bio_spans(["X"]), "tag 'X'"),
        (lambda: span_scores([["O"]], [["O", "O"]]), "differ in length"),
    ],
)
def test_bad_input_is_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()
