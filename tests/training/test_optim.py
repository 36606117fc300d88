"""AdamW against torch's over 100 updates in float64, its wrong versions, and what decays."""

import copy
import math

import pytest
import torch
from torch import nn

from minillm.models.gpt import GPT, GPTConfig
from minillm.training.optim import AdamW, adamw, parameter_groups

SETTINGS = [
    {"lr": 1e-2, "weight_decay": 0.0},
    {"lr": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)},
    {"lr": 1e-2, "weight_decay": 0.3, "betas": (0.0, 0.5), "eps": 1e-3},
]


def model_and_data(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 3)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model, torch.randn(100, 11, 5).double(), torch.randn(100, 11, 3).double()


def run(make, updates=100, lr_of=None):
    """Parameters after every update, and the optimizer."""
    model, inputs, targets = model_and_data()
    optimizer = make(model.parameters())
    history = []
    for step in range(updates):
        if lr_of:
            for group in optimizer.param_groups:
                group["lr"] = lr_of(step)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[step]), targets[step]).backward()
        optimizer.step()
        history.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
    return torch.stack(history), optimizer


def furthest(make, settings):
    ours, _ = run(make)
    theirs, _ = run(lambda p: torch.optim.AdamW(p, **settings, foreach=False))
    return (ours - theirs).abs().max().item()


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_torch_for_100_updates(settings):
    assert furthest(lambda p: AdamW(p, **settings), settings) < 1e-13


def test_equals_torch_with_a_schedule_and_fused():
    lr_of = lambda step: 1e-2 * (1 - step / 100)  # noqa: E731
    ours, _ = run(lambda p: AdamW(p, weight_decay=0.2), lr_of=lr_of)
    theirs, _ = run(lambda p: torch.optim.AdamW(p, weight_decay=0.2, fused=True), lr_of=lr_of)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


class Wrong(AdamW):
    """AdamW with one planted fault, to show that the comparison would see it."""

    def __init__(self, params, fault, **settings):
        super().__init__(params, **settings)
        self.fault = fault

    def _update(self, parameter, group):
        g, (b1, b2), lr, decay = (
            parameter.grad,
            *(group[k] for k in ("betas", "lr", "weight_decay")),
        )
        state = self.state[parameter]
        if not state:
            state.update(n=0, m=torch.zeros_like(g), v=torch.zeros_like(g))
        state["n"] += 1
        if self.fault == "coupled_l2":
            g = g + decay * parameter
        elif self.fault == "decay_without_rate":
            parameter.mul_(1 - decay)
        else:
            parameter.mul_(1 - lr * decay)
        state["m"] = b1 * state["m"] + (1 - b1) * g
        state["v"] = b2 * state["v"] + (1 - b2) * g * g
        n = state["n"] - 1 if self.fault == "step_from_zero" and state["n"] > 1 else state["n"]
        no_correction = self.fault == "no_bias_correction"
        m = state["m"] if no_correction else state["m"] / (1 - b1**n)
        v = state["v"] if no_correction else state["v"] / (1 - b2**n)
        root = (v + group["eps"]).sqrt() if self.fault == "eps_inside_root" else v.sqrt()
        if self.fault != "eps_inside_root":
            root = root + group["eps"]
        parameter.sub_(lr * m / root)


FAULTS = ["coupled_l2", "decay_without_rate", "no_bias_correction", "step_from_zero"]


@pytest.mark.parametrize("fault", [*FAULTS, "eps_inside_root"])
def test_wrong_versions_are_caught(fault):
    settings = SETTINGS[1]
    assert furthest(lambda p: Wrong(p, "none", **settings), settings) < 1e-12
    assert furthest(lambda p: Wrong(p, fault, **settings), settings) > 1e-6


def test_state_moves_to_torch_and_back():
    torch.manual_seed(0)
    whole, _ = run(lambda p: AdamW(p, weight_decay=0.1))
    model, inputs, targets = model_and_data()
    optimizer = AdamW(model.parameters(), weight_decay=0.1)
    for step in range(100):
        if step in (30, 60):
            kind = torch.optim.AdamW if step == 30 else AdamW
            other = kind(model.parameters(), weight_decay=0.1)
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            optimizer = other
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[step]), targets[step]).backward()
        optimizer.step()
    end = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(end, whole[-1], atol=1e-12, rtol=0)


def test_leaves_parameters_without_gradient_alone():
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = AdamW([a, b], weight_decay=0.5)
    a.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(b.detach(), torch.ones(3)) and b not in optimizer.state
    assert not torch.equal(a.detach(), torch.ones(3))


def test_closure():
    p = nn.Parameter(torch.ones(2))
    optimizer = AdamW([p])

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert (p < 1).all()


# What decays


def gpt():
    return GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=12, n_layers=2, n_heads=3))


def test_groups_take_matrices_and_spare_norms_and_biases():
    model = gpt()
    decay, keep = parameter_groups(model, 0.1)
    assert (decay["weight_decay"], keep["weight_decay"]) == (0.1, 0.0)
    decayed = {id(p) for p in decay["params"]}
    for name, p in model.named_parameters():
        assert (id(p) in decayed) == (p.dim() >= 2 and "norm" not in name), name
    total = [id(p) for p in decay["params"] + keep["params"]]
    assert len(total) == len(set(total)) == len(list(model.parameters()))


def test_wrong_version_decay_on_norms_is_seen():
    """With zero gradients only decay moves weights: norms and biases must stand still."""

    def moved(groups):
        model = gpt()
        optimizer = AdamW(groups(model), lr=0.1)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.step()
        return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}

    right = moved(lambda m: parameter_groups(m, 0.5))
    wrong = moved(lambda m: [{"params": list(m.parameters()), "weight_decay": 0.5}])
    assert right and not any("norm" in n or n.endswith("bias") for n in right)
    assert any("norm" in n for n in wrong - right)


def test_groups_with_tied_frozen_and_odd_shaped_parameters():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight  # tied
            self.a.bias.requires_grad_(False)
            self.norm = nn.GroupNorm(1, 2)
            self.norm.weight = nn.Parameter(torch.ones(2, 1))  # a norm's gain with two axes

    model = Odd()
    decay, keep = parameter_groups(model, 0.1)
    assert [id(p) for p in decay["params"]] == [id(model.a.weight)]
    assert {id(p) for p in keep["params"]} == {
        id(model.b.bias), id(model.norm.weight), id(model.norm.bias)
    }  # fmt: skip


def test_adamw_picks_the_implementation():
    assert isinstance(adamw(gpt(), 1e-3), AdamW)
    assert isinstance(adamw(gpt(), 1e-3, fused=True), torch.optim.AdamW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"betas": (0.9, 1.0)}, r"betas are \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, r"betas are \(-0.1"),
        ({"eps": -1e-8}, "eps is -1e-08"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"weight_decay": math.inf}, "weight_decay is inf"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        AdamW([nn.Parameter(torch.ones(1))], **options)


def test_nothing_to_train():
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


def test_sparse_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        AdamW(table.parameters()).step()
