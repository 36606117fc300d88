"""Gates of a mixture of experts against brute force, token by token."""

import math
from functools import partial

import pytest
import torch

from minillm.nn.gating import (
    best_groups,
    chosen,
    drop_over_capacity,
    expert_capacity,
    expert_choice_gate,
    group_limited_gate,
    limited_gate,
    noisy_top_k_gate,
    sigmoid_gate,
    soft_gate,
    top_k_gate,
)


def logits(n=23, e=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, e, generator=generator, dtype=torch.float64) * 2


def test_soft_gate_sends_everything_everywhere():
    x = logits()
    routing = soft_gate(x)
    assert routing.sent.all()
    assert torch.allclose(routing.weights, x.softmax(-1))
    assert torch.allclose(routing.load, torch.full((6,), 1 / 6, dtype=torch.float64))


@pytest.mark.parametrize("k", [1, 2, 6])
def test_top_k_equals_a_softmax_over_the_k_largest(k):
    """Softmax then renormalize, or choose then softmax: the same weights."""
    x = logits()
    routing = top_k_gate(x, k)
    for row, sent, weights in zip(x, routing.sent, routing.weights, strict=True):
        best = sorted(range(6), key=lambda i: -row[i])[:k]
        assert sent.nonzero().flatten().tolist() == sorted(best)
        total = sum(math.exp(row[i]) for i in best)
        expected = [math.exp(row[i]) / total if i in best else 0.0 for i in range(6)]
        assert torch.allclose(weights, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_without_renormalizing_weights_are_probabilities_and_the_router_of_one_expert_learns():
    x = logits().requires_grad_()
    kept, renormalized = top_k_gate(x, 1, renormalize=False), top_k_gate(x, 1)
    assert torch.equal(kept.weights, x.softmax(-1) * kept.sent)
    (gradient,) = torch.autograd.grad(kept.weights.sum(), x)
    (nothing,) = torch.autograd.grad(renormalized.weights.sum(), x)
    assert gradient.abs().max() > 0.05
    assert nothing.abs().max() < 1e-12


def test_noise_is_scaled_by_its_own_logits_and_drawn_from_the_generator():
    x, noise = logits(), torch.full((23, 6), -50.0, dtype=torch.float64)
    generator = partial(torch.Generator().manual_seed, 3)
    silent = noisy_top_k_gate(x, noise, 2, generator=generator())
    assert torch.allclose(silent.weights, top_k_gate(x, 2).weights)
    draw = torch.randn(x.shape, generator=generator(), dtype=torch.float64)
    loud = noisy_top_k_gate(x, torch.zeros_like(x), 2, generator=generator())
    assert torch.allclose(loud.logits, x + draw * math.log(2))  # softplus(0)
    assert torch.equal(loud.sent, chosen(x + draw * math.log(2), 2))
    assert not torch.equal(loud.sent, silent.sent)


def brute_groups(row, n_groups, top_groups, best):
    """Numbers of the experts in the best groups."""
    size = len(row) // n_groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(n_groups)]
    score = [sum(sorted((row[i] for i in group), reverse=True)[:best]) for group in groups]
    order = sorted(range(n_groups), key=lambda g: -score[g])[:top_groups]
    return sorted(i for g in order for i in groups[g])


@pytest.mark.parametrize("best", [1, 2])
def test_best_groups(best):
    scores = logits(e=12).sigmoid()
    allowed = best_groups(scores, 4, 2, best=best)
    for row, mask in zip(scores.tolist(), allowed, strict=True):
        assert mask.nonzero().flatten().tolist() == brute_groups(row, 4, 2, best)
    other = best_groups(scores, 4, 2, best=3 - best)
    assert not torch.equal(allowed, other), "the example cannot tell the rules apart"


def test_group_limited_gate():
    x = logits(e=12)
    routing = group_limited_gate(x, 3, n_groups=4, top_groups=2, scale=2.5)
    p = x.softmax(-1)
    for i, row in enumerate(p.tolist()):
        allowed = brute_groups(row, 4, 2, 1)
        best = sorted(allowed, key=lambda j: -row[j])[:3]
        assert routing.sent[i].nonzero().flatten().tolist() == sorted(best)
    assert torch.allclose(routing.weights, 2.5 * p * routing.sent)


def test_sigmoid_gate_takes_the_bias_for_choosing_only():
    x = logits(e=8)
    bias = torch.zeros(8, dtype=torch.float64)
    bias[5] = 9.0
    routing = sigmoid_gate(x, 2, bias=bias, scale=1.5)
    assert routing.sent[:, 5].all()
    scores = x.sigmoid() * routing.sent
    assert torch.allclose(routing.weights, 1.5 * scores / scores.sum(-1, keepdim=True))
    assert torch.allclose(routing.weights.sum(-1), torch.full((23,), 1.5, dtype=torch.float64))


def test_expert_choice_gives_every_expert_the_same_number_of_tokens():
    x = logits(n=24)
    routing = expert_choice_gate(x, factor=1.5)
    p = x.softmax(-1)
    assert routing.sent.sum(0).tolist() == [6] * 6  # 24 · 1.5 / 6
    for e in range(6):
        best = sorted(range(24), key=lambda n: -p[n, e])[:6]
        assert routing.sent[:, e].nonzero().flatten().tolist() == sorted(best)
    assert torch.equal(routing.weights, p * routing.sent)
    counts = routing.sent.sum(1)
    assert counts.min() < 1.5 < counts.max(), "some tokens go to several experts, some to none"
    assert expert_choice_gate(x[:1], factor=1.5).sent.sum() == 6  # one token, at least one place


def brute_force_drop(routing, capacity, order):
    """Whose turn it is, one at a time."""
    n, e = routing.sent.shape
    choices = []
    for token in range(n):
        mine = [i for i in range(e) if routing.sent[token, i]]
        mine.sort(key=lambda i: -routing.weights[token, i])
        choices += [(token, rank, i) for rank, i in enumerate(mine)]
    keys = {
        "token": lambda c: (c[0], c[1]),
        "choice": lambda c: (c[1], c[0]),
        "weight": lambda c: -routing.weights[c[0], c[2]],
    }
    kept, room = torch.zeros(n, e, dtype=torch.bool), [capacity] * e
    for token, _, i in sorted(choices, key=keys[order]):
        if room[i]:
            room[i] -= 1
            kept[token, i] = True
    return kept


@pytest.mark.parametrize("order", ["token", "choice", "weight"])
@pytest.mark.parametrize("capacity", [1, 5, 9, 99])
def test_dropping_over_capacity(order, capacity):
    routing = top_k_gate(logits(), 2)
    dropped = drop_over_capacity(routing, capacity, order=order)
    assert torch.equal(dropped.sent, brute_force_drop(routing, capacity, order))
    assert torch.equal(dropped.weights, routing.weights * dropped.sent)
    assert dropped.sent.sum(0).max() <= capacity


def test_orders_differ_and_so_do_their_leaks():
    """A later token takes an earlier one's place by rank or weight, never by position."""
    early, late = [2.0, 1.9, -9.0], [0.0, 9.0, -9.0]  # late wants expert 1 first, and more
    x = torch.tensor([early, late], dtype=torch.float64)
    alone, both = top_k_gate(x[:1], 2), top_k_gate(x, 2)
    for order, leaks in (("token", False), ("choice", True), ("weight", True)):
        before = drop_over_capacity(alone, 1, order=order).sent[0]
        after = drop_over_capacity(both, 1, order=order).sent[0]
        assert torch.equal(before, after) != leaks, order


def test_capacity():
    assert expert_capacity(23, 6, 1.25) == math.ceil(1.25 * 23 / 6) == 5
    x = logits()
    routing = limited_gate(x, partial(top_k_gate, k=2), factor=1.0, order="token")
    whole = top_k_gate(x, 2)
    assert torch.equal(routing.sent, brute_force_drop(whole, math.ceil(46 / 6), "token"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k_gate(logits(), 7), "k=7 experts of 6"),
        (lambda: top_k_gate(logits(), 0), "at least 1"),
        (lambda: best_groups(logits(), 4, 2, best=1), "n_groups must divide"),
        (lambda: best_groups(logits(), 3, 4, best=1), "no larger than n_groups"),
        (lambda: drop_over_capacity(top_k_gate(logits(), 1), 0), "capacity"),
        (lambda: expert_capacity(5, 2, -1.0), "factor"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
