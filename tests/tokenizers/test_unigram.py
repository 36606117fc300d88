import itertools
import math
import random
from collections import Counter

import pytest

from minillm.tokenizers import Unigram
from minillm.tokenizers.unigram import (
    Arc,
    forward,
    incoming,
    log_sum,
    n_best,
    posteriors,
    sample,
    viterbi,
)


def all_paths(arcs, n, place=0):
    """Every path from `place` to `n`, by listing them."""
    if place == n:
        yield []
    for arc in arcs:
        if arc.start == place:
            yield from ([arc, *rest] for rest in all_paths(arcs, n, arc.end))


def random_lattice(draw, n):
    spans = [(i, j) for i, j in itertools.combinations(range(n + 1), 2) if j - i <= 4]
    spans = [span for span in spans if span[1] - span[0] == 1 or draw.random() < 0.6]
    return [Arc(i, j, draw.uniform(-8, 0)) for i, j in spans]


def lattices():
    draw = random.Random(0)
    return [(random_lattice(draw, n), n) for n in (1, 2, 3, 5, 7, 9) for _ in range(5)]


def total(path):
    return sum(arc.score for arc in path)


def test_forward_backward_is_brute_force():
    for arcs, n in lattices():
        weights = {tuple(path): math.exp(total(path)) for path in all_paths(arcs, n)}
        z = sum(weights.values())
        shares, log_z = posteriors(arcs, n)
        assert abs(log_z - math.log(z)) < 1e-10
        for arc, share in zip(arcs, shares, strict=True):
            exact = sum(weight for path, weight in weights.items() if arc in path) / z
            assert abs(share - exact) < 1e-10


def test_viterbi_and_n_best_are_brute_force():
    for arcs, n in lattices():
        ranked = sorted(all_paths(arcs, n), key=total, reverse=True)
        path, score = viterbi(arcs, n)
        assert path == ranked[0] and abs(score - total(ranked[0])) < 1e-12
        found = n_best(arcs, n, 7)
        assert [path for path, _ in found] == ranked[:7]
        assert all(abs(score - total(path)) < 1e-10 for path, score in found)
        assert len(n_best(arcs, n, 10**6)) == len(ranked)


def test_samples_follow_their_probabilities():
    arcs, n = [Arc(0, 1, -1.0), Arc(1, 2, -0.5), Arc(0, 2, -1.2), Arc(2, 3, -0.1)], 3
    rng, draws = random.Random(0), 6000
    seen = Counter(tuple(sample(arcs, n, rng)) for _ in range(draws))
    z = math.exp(forward(arcs, n)[n])
    wanted = {tuple(path): draws * math.exp(total(path)) / z for path in all_paths(arcs, n)}
    assert sum((seen[path] - w) ** 2 / w for path, w in wanted.items()) < 8


def greedy_left_to_right(arcs, n):
    path, place = [], 0
    while place < n:
        here = [arc for arc in arcs if arc.start == place]
        path.append(max(here, key=lambda arc: arc.end))
        place = path[-1].end
    return path


def best_arc_by_arc(arcs, n):
    path, place = [], 0
    while place < n:
        here = [arc for arc in arcs if arc.start == place]
        path.append(max(here, key=lambda arc: arc.score))
        place = path[-1].end
    return path


def forward_with_max(arcs, n):
    """Viterbi's table in place of the sums: wrong for the E-step."""
    best = [0.0]
    for into in incoming(arcs, n)[1:]:
        best.append(max(best[arc.start] + arc.score for arc in into))
    return best


@pytest.mark.parametrize("wrong", [greedy_left_to_right, best_arc_by_arc])
def test_greedy_ways_are_noticed(wrong):
    assert any(wrong(arcs, n) != viterbi(arcs, n)[0] for arcs, n in lattices())


def test_maximum_for_sum_is_noticed():
    assert any(abs(forward_with_max(a, n)[n] - forward(a, n)[n]) > 1e-3 for a, n in lattices())


@pytest.mark.parametrize("precision", ["f", "d"])
def test_best_is_viterbi_on_the_lattice(precision):
    draw = random.Random(3)
    for _ in range(40):
        texts = {"".join(draw.choices("abc", k=draw.randrange(1, 5))) for _ in range(12)}
        model = Unigram({t: draw.uniform(-9, -1) for t in sorted(texts)}, precision=precision)
        for _ in range(10):
            text = "".join(draw.choices("abcd", k=draw.randrange(14)))
            path, score = viterbi(model.lattice(text), len(text))
            pieces = model.best(text)
            assert "".join(pieces) == text
            assert pieces == [text[arc.start : arc.end] for arc in path] or math.isclose(
                sum(model.scores.get(p, model.unknown_score) for p in pieces), score, rel_tol=1e-6
            )
            if text:
                assert model.n_best(text, 1)[0][1] == pytest.approx(score)
                assert model.log_probability(text) >= score - 1e-12


def test_long_texts_keep_their_precision():
    """In 32 bits, scores of a million characters would otherwise swallow a piece's digits."""
    model = Unigram({"a": -10.0, "b": -10.0, "ab": -20.05}, precision="f")
    assert model.best("ab" * 30_000) == ["a", "b"] * 30_000


def test_unknown_characters():
    model = Unigram({"a": -1.0, "bc": -3.0})
    assert model.unknown_score == -13.0
    assert model.best("abca") == ["a", "bc", "a"] and model.best("ba") == ["b", "a"]
    assert model.best("") == [] and model.lattice("") == []


def test_bad_arguments():
    for scores in ({"": 0.0}, {"a": float("inf")}, {"a": float("nan")}):
        with pytest.raises(ValueError, match=r"must be|score"):
            Unigram(scores)
    with pytest.raises(ValueError, match="precision"):
        Unigram({"a": 0.0}, precision="e")
    with pytest.raises(ValueError, match="at least 1"):
        n_best([Arc(0, 1, 0.0)], 1, 0)
    for function in (posteriors, viterbi):
        with pytest.raises(ValueError, match="no path"):
            function([Arc(0, 1, 0.0)], 2)
    assert log_sum([]) == -math.inf and log_sum([1e4, 1e4]) == pytest.approx(1e4 + math.log(2))
