"""The unigram model of segmentation: p(x₁ … xₙ) = ∏ p(xᵢ) (Kudo 2018, "Subword Regularization").

A text can be cut into pieces in many ways. All of them are paths through a *lattice*: its nodes are
the places between characters, and an arc from `start` to `end` is a piece that stands there. What
the model is asked for are four questions about those paths: the best one (`viterbi`), the best n
(`n_best`), a random one (`sample`), and sums over all of them (`forward`, `posteriors`).

Scores are natural logarithms of probabilities.
"""

import heapq
import math
import random
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

UNKNOWN_PENALTY = 10.0  # an unknown character scores this much less than the worst piece


class Arc(NamedTuple):
    """A piece that stands in a text from character `start` to `end`, and its log-probability."""

    start: int
    end: int
    score: float


class Unigram:
    """Pieces with scores, and the segmentations of a text into them.

    `precision` is the type in which `best` adds up scores: "f" (32 bits), as SentencePiece does, or
    "d", as Hugging Face does. Only paths that tie, such as a·aa and aa·a, tell the difference.
    `whole` are pieces that are wanted wherever they stand (SentencePiece: user-defined symbols).
    """

    def __init__(
        self, scores: Mapping[str, float], *, whole: Sequence[str] = (), precision: str = "d"
    ):
        for piece, score in scores.items():
            if not isinstance(piece, str) or not piece:
                raise ValueError(f"piece {piece!r:.60} must be a non-empty string")
            if not isinstance(score, float | int) or not math.isfinite(score):
                raise ValueError(f"piece {piece!r:.60} has the score {score!r:.40}: give a number")
        if precision not in ("f", "d"):
            raise ValueError(f"precision {precision!r:.40} must be 'f' (32 bits) or 'd' (64 bits)")
        self.scores, self.whole, self.precision = dict(scores), frozenset(whole), precision
        normal = [score for piece, score in scores.items() if piece not in self.whole]
        self.unknown_score = self._rounded(min(normal, default=0.0) - UNKNOWN_PENALTY)
        self._prefixes: dict[str, float | None] = {}  # every prefix of a piece; None: not a piece
        for piece in scores:
            for n in range(1, len(piece)):
                self._prefixes.setdefault(piece[:n], None)
            self._prefixes[piece] = self._score(piece, len(piece.encode("utf-8", "replace")))

    def _score(self, piece: str, length: int) -> float:
        """The score of a piece; above zero, so out of reach of the others, if it is taken whole."""
        if piece in self.whole:
            return self._rounded(0.1 * (length - 1))
        return self.scores[piece]

    def _rounded(self, value: float) -> float:
        return array(self.precision, [value])[0]

    def lattice(self, text: str) -> list[Arc]:
        """Return every piece in `text` as an arc, and characters that are none as unknown ones."""
        arcs = []
        for start in range(len(text)):
            single = False
            for end in range(start + 1, len(text) + 1):
                piece = text[start:end]
                if piece not in self._prefixes:
                    break
                if self._prefixes[piece] is not None:
                    arcs.append(Arc(start, end, self._score(piece, end - start)))
                    single = single or end == start + 1
            if not single:
                arcs.append(Arc(start, start + 1, self.unknown_score))
        return arcs

    def best(self, text: str) -> list[str]:
        """Return the most probable segmentation.

        Viterbi's algorithm on the fly: nothing is kept but, for each place, the best score of a
        path to it and where its last piece begins.
        """
        n, prefixes, unknown = len(text), self._prefixes, self.unknown_score
        total = array(self.precision, [-math.inf]) * (n + 1)  # rounds what is put into it
        rounded = array(self.precision, [0.0])
        came_from, total[0], reach = [0] * (n + 1), 0.0, 0
        for start in range(n):
            if abs(total[start]) > 1e5:  # count from here on, or 32 bits lose the small digits
                total[start : reach + 1] = _shifted(total[start : reach + 1], total[start])
            here, end, single = total[start], start, False
            while end < n:
                end += 1
                score = prefixes.get(text[start:end], False)
                if score is False:
                    break
                if score is None:
                    continue
                single = single or end == start + 1
                if here + score > total[end]:
                    rounded[0] = here + score
                    if rounded[0] > total[end]:
                        total[end], came_from[end] = rounded[0], start
                reach = max(reach, end)
            if not single:
                reach = max(reach, start + 1)
                rounded[0] = here + unknown
                if rounded[0] > total[start + 1]:
                    total[start + 1], came_from[start + 1] = rounded[0], start
        pieces, end = [], n
        while end > 0:
            pieces.append(text[came_from[end] : end])
            end = came_from[end]
        return pieces[::-1]

    def n_best(self, text: str, n: int) -> list[tuple[list[str], float]]:
        """Return the `n` most probable segmentations, best first, each with its log-probability."""
        paths = n_best(self.lattice(text), len(text), n)
        return [([text[a.start : a.end] for a in path], score) for path, score in paths]

    def sample(self, text: str, *, alpha: float | int = 1.0, rng: random.Random) -> list[str]:
        """Return a segmentation drawn with probability ∝ p(x)^α (α = 0: any, α → ∞: the best)."""
        arcs = [Arc(a.start, a.end, alpha * a.score) for a in self.lattice(text)]
        return [text[a.start : a.end] for a in sample(arcs, len(text), rng)]

    def log_probability(self, text: str) -> float:
        """Return ln Σ p(x) over all segmentations x of `text`."""
        return forward(self.lattice(text), len(text))[len(text)]


def _shifted(values: array, by: float) -> array:
    return array(values.typecode, [value - by for value in values])


def incoming(arcs: Sequence[Arc], n: int) -> list[list[Arc]]:
    """Return for each place 0 … n the arcs that end there."""
    into = [[] for _ in range(n + 1)]
    for arc in arcs:
        into[arc.end].append(arc)
    return into


def log_sum(values: Sequence[float]) -> float:
    """Return ln Σ exp(v) without overflow; -inf for no values."""
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(v - top) for v in values))


def forward(arcs: Sequence[Arc], n: int) -> list[float]:
    """Return for each place ln Σ p over all paths to it: α(0) = 0, α(j) = ln Σ e^(α(i) + s)."""
    alpha = [0.0]
    for into in incoming(arcs, n)[1:]:
        alpha.append(log_sum([alpha[arc.start] + arc.score for arc in into]))
    return alpha


def posteriors(arcs: Sequence[Arc], n: int) -> tuple[list[float], float]:
    """Return the probability that a random path takes each arc, and ln Σ p over all paths.

    With β(i), the same sum from a place to the end: P(arc) = e^(α(start) + s + β(end) - α(n)).
    """
    alpha = forward(arcs, n)
    if alpha[n] == -math.inf:
        raise ValueError(f"no path leads from 0 to {n}: every character needs an arc")
    mirrored = [Arc(n - arc.end, n - arc.start, arc.score) for arc in arcs]
    beta = forward(mirrored, n)[::-1]
    z = alpha[n]
    return [math.exp(alpha[a.start] + a.score + beta[a.end] - z) for a in arcs], z


def viterbi(arcs: Sequence[Arc], n: int) -> tuple[list[Arc], float]:
    """Return the path from 0 to `n` with the largest score, and that score."""
    best, last = [0.0], [None]
    for into in incoming(arcs, n)[1:]:
        arc = max(into, key=lambda arc: best[arc.start] + arc.score, default=None)
        best.append(-math.inf if arc is None else best[arc.start] + arc.score)
        last.append(arc)
    path, place = [], n
    while place > 0:
        if last[place] is None:
            raise ValueError(f"no path leads from 0 to {n}: every character needs an arc")
        path.append(last[place])
        place = last[place].start
    return path[::-1], best[n]


def n_best(arcs: Sequence[Arc], n: int, count: int) -> list[tuple[list[Arc], float]]:
    """Return the `count` best paths with their scores, best first.

    A* from the end: a half-finished path is judged by its own score plus the best score of what is
    missing, which Viterbi's table knows exactly, so paths come off the heap in the right order.
    """
    if count < 1:
        raise ValueError(f"the number of segmentations is {count}: ask for at least 1")
    into, best = incoming(arcs, n), [0.0]
    for arriving in into[1:]:
        best.append(max((best[arc.start] + arc.score for arc in arriving), default=-math.inf))
    heap, found, order = [(-best[n], 0, n, 0.0, None)], [], 0
    while heap and len(found) < count:
        _, _, place, score, tail = heapq.heappop(heap)
        if place == 0:
            path = []
            while tail is not None:
                arc, tail = tail
                path.append(arc)
            found.append((path, score))
            continue
        for arc in into[place]:
            if best[arc.start] > -math.inf:
                order += 1  # among equals the path that was met first
                so_far = score + arc.score
                item = (-so_far - best[arc.start], order, arc.start, so_far, (arc, tail))
                heapq.heappush(heap, item)
    return found


def sample(arcs: Sequence[Arc], n: int, rng: random.Random) -> list[Arc]:
    """Return a path drawn with its probability: from the end back, each arc by its share of α."""
    alpha, into, path, place = forward(arcs, n), incoming(arcs, n), [], n
    while place > 0:
        weights = [math.exp(alpha[a.start] + a.score - alpha[place]) for a in into[place]]
        path.append(rng.choices(into[place], weights)[0])
        place = path[-1].start
    return path[::-1]
