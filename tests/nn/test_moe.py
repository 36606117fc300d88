"""The mixture-of-experts layer against a loop over tokens, and what of it is computed."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minillm.nn.ffn import GatedFeedForward, geglu
from minillm.nn.gating import expert_choice_gate, limited_gate, sigmoid_gate, soft_gate, top_k_gate
from minillm.nn.moe import (
    BiasedRouter,
    GatedExperts,
    MixtureOfExperts,
    NoisyRouter,
    Router,
    SharedExpert,
)

D, F, E = 6, 10, 5


def layer(gate, shared=None, seed=0, **experts):
    torch.manual_seed(seed)
    return MixtureOfExperts(Router(D, E, gate), GatedExperts(E, D, F, **experts), shared).double()


def inputs(*shape, seed=1):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed)).double()


def one_by_one(moe, x):
    """Every token by itself, every expert as a `GatedFeedForward` of its own."""
    flat = x.reshape(-1, D)
    routing = moe.router(flat)
    out = torch.zeros_like(flat)
    for i in range(E):
        expert = GatedFeedForward(D, F, gated=moe.experts.gated).double()
        for name in ("gate", "up", "down"):
            getattr(expert, name).weight.data = getattr(moe.experts, name)[i].data
        for n, token in enumerate(flat):
            if routing.sent[n, i]:
                out[n] += routing.weights[n, i] * expert(token)
    return out.view(x.shape)


@pytest.mark.parametrize(
    "gate",
    [
        soft_gate,
        partial(top_k_gate, k=2),
        partial(top_k_gate, k=1, renormalize=False),
        partial(sigmoid_gate, k=3),
        expert_choice_gate,
        partial(limited_gate, gate=partial(top_k_gate, k=2), factor=0.6),
    ],
    ids=["soft", "top 2", "top 1", "sigmoid", "expert choice", "limited"],
)
@pytest.mark.parametrize("gated", [None, geglu])
def test_equals_one_token_at_a_time(gate, gated):
    moe = layer(gate, **({} if gated is None else {"gated": gated}))
    x = inputs(2, 7)
    assert torch.allclose(moe(x), one_by_one(moe, x), atol=1e-12)


def test_one_expert_is_a_feed_forward_layer():
    torch.manual_seed(0)
    experts, ffn = GatedExperts(1, D, F).double(), GatedFeedForward(D, F).double()
    for name in ("gate", "up", "down"):
        getattr(ffn, name).weight.data = getattr(experts, name)[0].data
    moe = MixtureOfExperts(Router(D, 1, partial(top_k_gate, k=1)).double(), experts)
    x = inputs(3, 4)
    assert torch.allclose(moe(x), ffn(x), atol=1e-12)


def test_shared_expert_adds_itself_and_its_gate():
    torch.manual_seed(0)
    ffn = GatedFeedForward(D, F)
    moe, x = layer(partial(top_k_gate, k=2)), inputs(2, 7)
    plain = moe(x)
    moe.shared = ffn.double()
    assert torch.allclose(moe(x), plain + ffn(x), atol=1e-12)
    moe.shared = SharedExpert(D, ffn).double()
    share = torch.sigmoid(x @ moe.shared.share.weight.T)
    assert torch.allclose(moe(x), plain + share * ffn(x), atol=1e-12)


def test_flops_grow_with_the_choices_and_not_with_the_experts():
    counts = {}
    for n_experts, k in ((4, 2), (16, 2), (16, 4)):
        router = Router(D, n_experts, partial(top_k_gate, k=k))
        moe = MixtureOfExperts(router, GatedExperts(n_experts, D, F))
        with FlopCounterMode(display=False) as counter:
            moe(torch.randn(3, 11, D))
        counts[n_experts, k] = counter.get_total_flops() - 2 * 33 * D * n_experts  # the router's
    assert counts[4, 2] == counts[16, 2] == 2 * 33 * 3 * D * F * 2
    assert counts[16, 4] == 2 * counts[16, 2]


def test_gradients_reach_used_experts_only_and_the_router():
    moe, x = layer(partial(top_k_gate, k=1, renormalize=False)), inputs(3)
    used = moe.router(x).sent.any(0)
    assert 0 < used.sum() < E
    moe(x).square().sum().backward()
    moved = moe.experts.down.grad.flatten(1).abs().amax(1) > 0
    assert torch.equal(moved, used)
    assert moe.router.weight.grad.abs().max() > 0


def test_noise_only_while_training_and_all_experts_alike_at_first():
    torch.manual_seed(0)
    router = NoisyRouter(D, E, k=2)
    x = torch.randn(400, D)
    load = router(x).load
    assert (load - 1 / E).abs().max() < 0.08
    torch.nn.init.normal_(router.weight)
    assert not torch.equal(router(x).sent, router(x).sent)
    router.eval()
    assert torch.equal(router(x).sent, top_k_gate(x @ router.weight.T, 2).sent)
    router.train()
    router(x).weights.square().sum().backward()
    assert router.noise.grad.abs().max() > 0


def test_bias_steers_and_gets_no_gradient():
    torch.manual_seed(0)
    router = BiasedRouter(D, E, partial(sigmoid_gate, k=1, renormalize=False))
    x = torch.randn(50, D)
    before = router(x)
    router.bias[3] = 2.0
    after = router(x)
    assert after.sent[:, 3].all()
    assert not before.sent[:, 3].all()
    assert torch.equal(after.weights[:, 3], after.logits.sigmoid()[:, 3])
    assert dict(router.named_parameters()).keys() == {"weight"}
    assert "bias" in router.state_dict()


def test_router_computes_in_float32_when_the_model_is_in_half_precision():
    router = Router(D, E, partial(top_k_gate, k=2)).bfloat16()
    x = torch.randn(9, D).bfloat16()
    routing = router(x)
    assert routing.logits.dtype == torch.float32
    assert torch.equal(routing.logits, x.float() @ router.weight.float().T)
    moe = MixtureOfExperts(router, GatedExperts(E, D, F).bfloat16())
    assert moe(x).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [0, -1])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="n_experts"):
        Router(D, size, soft_gate)
    with pytest.raises(ValueError, match="n_experts"):
        GatedExperts(size, D, F)
