"""How good a classifier is: confusion matrix, precision, recall, F1, and how sure we can be.

Every score is a function of the confusion matrix M, where M[i, j] counts the examples of class i
that were called j. A score that would be 0/0 is 0, as in scikit-learn's default.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


def confusion_matrix(
    targets: Int[Tensor, " n"], predictions: Int[Tensor, " n"], n_classes: int
) -> Int[Tensor, "k k"]:
    """M[i, j]: how many examples of class i (rows, the truth) were predicted as j (columns)."""
    for name, ids in (("targets", targets), ("predictions", predictions)):
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(
                f"{name} must be whole numbers, got {ids.dtype}; write `{name}.long()`"
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < n_classes:
            raise ValueError(
                f"{name} go from {int(ids.min())} to {int(ids.max())}; classes are 0 … "
                f"{n_classes - 1}. Drop what is not to be counted (−100) first"
            )
    if targets.shape != predictions.shape:
        raise ValueError(f"{len(targets)} targets for {len(predictions)} predictions")
    pairs = targets.long() * n_classes + predictions.long()
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)


class Scores(NamedTuple):
    """Precision, recall and F1: of each class, or averaged to one number."""

    precision: Float[Tensor, "*k"]
    recall: Float[Tensor, "*k"]
    f1: Float[Tensor, "*k"]


def class_scores(matrix: Int[Tensor, "k k"]) -> Scores:
    """Of each class: TP/(TP + FP), TP/(TP + FN), and F1 = 2 TP/(2 TP + FP + FN)."""
    matrix = matrix.double()
    hits, called, there = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    return _scores(hits, called, there)


def average_scores(
    matrix: Int[Tensor, "k k"], average: Literal["macro", "weighted", "micro"] = "macro"
) -> Scores:
    """One number each: "macro" is the mean over classes, "weighted" counts each by its examples.

    "micro" pools the counts of all classes first. Where every example has one class, a false
    positive of one class is a false negative of another, and all three equal the accuracy.
    """
    if average == "micro":
        matrix = matrix.double()
        return _scores(matrix.trace(), matrix.sum(), matrix.sum())
    if average not in ("macro", "weighted"):
        raise ValueError(f'average is {average!r}; choose "macro", "weighted" or "micro"')
    scores = class_scores(matrix)
    weight = torch.ones(len(matrix)) if average == "macro" else matrix.sum(1)
    weight = weight.double() / weight.sum()
    return Scores(*((score * weight).sum() for score in scores))


def accuracy(matrix: Int[Tensor, "k k"]) -> float:
    """Share of the examples that were called by their own class."""
    return int(matrix.trace()) / int(matrix.sum())  # integers: float32 would round


def _scores(hits: Tensor, called: Tensor, there: Tensor) -> Scores:
    def share(part: Tensor, whole: Tensor) -> Tensor:
        return torch.where(whole > 0, part / whole.clamp(min=1), 0.0)

    return Scores(share(hits, called), share(hits, there), share(2 * hits, called + there))


class Interval(NamedTuple):
    """Limits between which the true value lies with the given confidence."""

    low: float
    high: float


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Interval of a share of `n` independent trials (Wilson 1927): it never leaves [0, 1]."""
    if not 0 <= successes <= n or n < 1 or not 0 < level < 1:
        raise ValueError(f"{successes} of {n} at level {level} is no share of at least one trial")
    z = float(torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)))
    share, extra = successes / n, z * z / n
    center = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * (share * (1 - share) / n + extra / (4 * n)) ** 0.5
    return Interval(max(0.0, center - half), min(1.0, center + half))


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: Tensor,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentiles of `statistic` over resamples with replacement (Efron 1979).

    All `samples` are resampled with the same indices, so that pairs stay pairs: for a difference
    of two classifiers hand in both predictions.
    """
    if not samples or any(len(sample) != len(samples[0]) for sample in samples):
        raise ValueError(f"samples of lengths {[len(s) for s in samples]}: give one length for all")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} must be in (0, 1), resamples {resamples} at least 1")
    generator, n, found = torch.Generator().manual_seed(seed), len(samples[0]), []
    for _ in range(resamples):
        rows = torch.randint(n, (n,), generator=generator)
        found.append(float(statistic(*(sample[rows] for sample in samples))))
    limits = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.tensor(found, dtype=torch.float64).quantile(limits).tolist()
    return Interval(low, high)


def bio_spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(kind, first token, token after the last) of each span in B-, I-, O tags.

    An I- that continues nothing of its own kind begins a span, as in CoNLL's script.
    """
    spans, kind, start = set(), None, 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if prefix not in ("B", "I", "O") or (prefix != "O") != bool(name):
            raise ValueError(f"tag {tag!r} is none of B-kind, I-kind, O")
        if kind is not None and (prefix != "I" or name != kind):
            spans.add((kind, start, i))
            kind = None
        if prefix != "O" and kind is None:
            kind, start = name, i
    return spans


def span_scores(targets: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall, F1 of whole spans: right only with both ends and the kind (CoNLL 2003)."""
    if [len(t) for t in targets] != [len(p) for p in predictions]:
        raise ValueError("targets and predictions differ in length: give one tag per token in both")
    hits = called = there = 0
    for true, guess in zip(targets, predictions, strict=True):
        a, b = bio_spans(true), bio_spans(guess)
        hits, there, called = hits + len(a & b), there + len(a), called + len(b)
    counts = (torch.tensor(float(n), dtype=torch.float64) for n in (hits, called, there))
    return _scores(*counts)
