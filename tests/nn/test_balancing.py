"""Balancing losses against their definitions, and what they do to a router."""

from functools import partial

import pytest
import torch
from transformers.models.switch_transformers import modeling_switch_transformers as switch

from minillm.nn.balancing import (
    importance_loss,
    pooled_switch_loss,
    record_routing,
    router_z_loss,
    sequence_balance_loss,
    switch_loss,
    update_bias,
)
from minillm.nn.gating import Routing, sigmoid_gate, soft_gate, top_k_gate
from minillm.nn.moe import BiasedRouter, GatedExperts, MixtureOfExperts, Router

E = 5


def logits(n=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, E, generator=generator, dtype=torch.float64) + torch.arange(E) / 4


def balanced(k):
    """Every expert chosen equally often, with equal probabilities."""
    sent = torch.stack([torch.arange(E).roll(i) < k for i in range(E)])
    p = torch.full((E, E), 1 / E, dtype=torch.float64)
    return Routing(p.log(), p, sent, p * sent)


def collapsed():
    """One expert gets everything."""
    p = torch.zeros(7, E, dtype=torch.float64)
    p[:, 2] = 1.0
    return Routing(p, p, p > 0, p)


def test_scales_at_balance_and_at_collapse():
    for k in (1, 2, 3):
        assert switch_loss(balanced(k)).item() == pytest.approx(1)
        assert pooled_switch_loss([balanced(k)] * 2).item() == pytest.approx(k)
        assert sequence_balance_loss(balanced(k), 1).item() == pytest.approx(1)
        assert importance_loss(balanced(k)).item() == pytest.approx(0)
    assert switch_loss(collapsed()).item() == E
    assert pooled_switch_loss([collapsed()]).item() == E
    assert importance_loss(collapsed()).item() == pytest.approx(E - 1)


@pytest.mark.parametrize("k", [1, 2])
def test_switch_loss_by_counting(k):
    routing = top_k_gate(logits(), k)
    p = routing.logits.softmax(-1)
    total = 0.0
    for i in range(E):
        f = sum(bool(row[i]) for row in routing.sent) / (30 * k)
        total += f * sum(row[i].item() for row in p) / 30
    assert switch_loss(routing).item() == pytest.approx(E * total, abs=1e-12)


def test_switch_and_z_loss_equal_transformers_switch():
    """Its classes see (groups, tokens, experts); one group is all tokens."""
    x = logits()
    routing = top_k_gate(x, 1, renormalize=False)
    best = x.argmax(-1)
    theirs = switch.load_balancing_loss_func(x.softmax(-1)[None], best[None, :, None])
    assert switch_loss(routing).item() == pytest.approx(theirs.item(), abs=1e-6)
    assert router_z_loss(routing).item() == pytest.approx(
        switch.router_z_loss_func(x[None]).item(), abs=1e-9
    )


def test_padding_does_not_count():
    x, keep = logits(), torch.arange(30) % 3 > 0
    for loss in (switch_loss, router_z_loss, lambda r, k: pooled_switch_loss([r], k)):
        padded, alone = loss(top_k_gate(x, 2), keep), loss(top_k_gate(x[keep], 2), None)
        assert padded.item() == pytest.approx(alone.item())
        assert padded.item() != pytest.approx(loss(top_k_gate(x, 2), None).item())


def test_pooling_excuses_what_each_layer_does():
    """Layer 1 uses expert 2 alone, layer 2 expert 4 alone: pooled, that is less than either."""
    one = collapsed()
    other = Routing(*(x.roll(2, 1) for x in (one.logits, one.scores, one.sent, one.weights)))
    assert switch_loss(one) == switch_loss(other) == E
    assert pooled_switch_loss([one, other]).item() == pytest.approx(E / 2)


def test_sequence_loss_is_the_mean_over_sequences_and_normalizes_sigmoids():
    routing = sigmoid_gate(logits(), 2)
    expected = []
    for rows in (slice(0, 10), slice(10, 20), slice(20, 30)):
        s = routing.logits[rows].sigmoid()
        s = s / s.sum(-1, keepdim=True)
        f = routing.sent[rows].sum(0) * E / (2 * 10)
        expected.append((f * s.mean(0)).sum())
    loss = sequence_balance_loss(routing, 3)
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item())
    assert loss.item() != pytest.approx(sequence_balance_loss(routing, 1).item())


def test_importance_loss_is_a_squared_coefficient_of_variation():
    routing = soft_gate(logits())
    importance = routing.weights.sum(0)
    expected = (importance.std(correction=0) / importance.mean()) ** 2
    assert importance_loss(routing).item() == pytest.approx(expected.item())


def test_gradient_of_the_switch_loss_pushes_busy_experts_down():
    x = logits().requires_grad_()
    routing = top_k_gate(x, 1)
    busiest, idlest = routing.load.argmax(), routing.load.argmin()
    (gradient,) = torch.autograd.grad(switch_loss(routing), x)
    assert gradient[:, busiest].sum() > 0 > gradient[:, idlest].sum()


def test_update_bias_balances_a_lopsided_router():
    torch.manual_seed(0)
    router = BiasedRouter(8, E, partial(sigmoid_gate, k=2)).double()
    x = torch.randn(600, 8, dtype=torch.float64) + 0.7  # some experts are liked by most tokens
    first = router(x).load
    for _ in range(400):
        update_bias(router, router(x).sent.sum(0), rate=0.005)
    last = router(x).load
    assert first.max() - first.min() > 0.25
    assert last.max() - last.min() < 0.03


def test_update_bias_moves_by_the_rate_and_the_right_way():
    router = BiasedRouter(4, 3, partial(sigmoid_gate, k=1))
    update_bias(router, torch.tensor([9, 3, 0]), rate=0.01)
    assert torch.allclose(router.bias, torch.tensor([-0.01, 0.01, 0.01]))
    update_bias(router, torch.tensor([4, 4, 4]))
    assert torch.allclose(router.bias, torch.tensor([-0.01, 0.01, 0.01]))


def test_recording_sees_every_layer_once_and_leaves_nothing_behind():
    def layer():
        return MixtureOfExperts(Router(6, E, partial(top_k_gate, k=2)), GatedExperts(E, 6, 8))

    model = torch.nn.Sequential(layer(), layer())
    x = torch.randn(4, 3, 6)
    with record_routing(model) as routings:
        model(x)
    assert len(routings) == 2
    assert torch.equal(routings[0].sent, model[0].router(x.flatten(0, 1)).sent)
    (gradient,) = torch.autograd.grad(switch_loss(routings[1]), model[1].router.weight)
    assert gradient.abs().max() > 0
    model(x)
    assert len(routings) == 2
    with pytest.raises(ZeroDivisionError), record_routing(model):
        1 / 0  # noqa: B018
    assert not model[0].router._forward_hooks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: record_routing(torch.nn.Linear(2, 2)).__enter__(), "no MixtureOfExperts"),
        (lambda: switch_loss(balanced(1), torch.ones(E - 1, dtype=torch.bool)), "attention_mask"),
        (lambda: sequence_balance_loss(balanced(1), 2), "equal length"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
