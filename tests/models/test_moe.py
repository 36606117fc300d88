"""Mixtral and Qwen2-MoE: published sizes, settings, and a model that trains."""

import pytest
import torch

from minillm.hub.configs import config_fields, hf_config
from minillm.models.moe import (
    MIXTRAL_FORMAT,
    QWEN2_MOE_FORMAT,
    MixtralConfig,
    QwenMoEConfig,
    SeparateExperts,
    StackedPair,
    mixtral,
    moe_tiny,
    qwen2_moe,
)
from minillm.nn.balancing import pooled_switch_loss, record_routing


def total_and_active(model):
    """All parameters, and those that one token uses, in billions."""
    c, experts = model.config, model.blocks[-1].ffn.experts
    total = sum(p.numel() for p in model.parameters())
    each = sum(p.numel() for p in experts.parameters()) // c.n_experts
    return total / 1e9, (total - c.n_layers * (c.n_experts - c.top_k) * each) / 1e9


@pytest.mark.parametrize(
    ("preset", "size", "total", "active"),
    [
        (mixtral, "8x7b", 46.7, 12.9),
        (mixtral, "8x22b", 140.6, 39.2),
        (qwen2_moe, "1.5-a2.7b", 14.3, 2.7),
        (qwen2_moe, "2-57b-a14b", 57.4, 14.2),
    ],
)
def test_published_sizes(preset, size, total, active):
    with torch.device("meta"):
        found = total_and_active(preset(size))
    assert found == pytest.approx((total, active), abs=0.06)


def test_a_mixture_learns_with_its_balancing_loss():
    torch.manual_seed(0)
    model = moe_tiny(17, d_model=16, d_ff=16, n_experts=4)
    tokens = torch.randint(17, (4, 12))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        with record_routing(model) as routings:
            logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        (loss + 0.01 * pooled_switch_loss(routings)).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_settings_survive_a_round_trip_and_name_what_is_not_supported():
    model = moe_tiny(17, d_model=16, n_experts=4, d_head=6)
    settings = hf_config(model)
    assert settings["num_local_experts"] == 4
    assert MixtralConfig(**config_fields(MIXTRAL_FORMAT, settings, MixtralConfig)) == model.config
    with pytest.raises(ValueError, match="sliding_window"):
        config_fields(MIXTRAL_FORMAT, {**settings, "sliding_window": 4096}, MixtralConfig)
    qwen = hf_config(qwen2_moe(vocab_size=9, d_model=8, n_layers=1, n_heads=2, d_ff=4, d_shared=6))
    for name, value in (("mlp_only_layers", [0]), ("norm_topk_prob", True), ("qkv_bias", False)):
        with pytest.raises(ValueError, match=name):
            config_fields(QWEN2_MOE_FORMAT, {**qwen, name: value}, QwenMoEConfig)


def test_stacked_pair_is_a_bijection_and_checks_its_shape():
    theirs = torch.randn(3, 8, 5)
    gate, up = StackedPair().split(theirs, None)
    assert torch.equal(gate, theirs[:, :4])
    assert torch.equal(StackedPair().join((gate, up), None), theirs)
    with pytest.raises(ValueError, match="gate_up_proj"):
        StackedPair().split(theirs[:, :7], None)


def test_experts_one_by_one_are_stacked():
    names = ("gate_proj", "up_proj", "down_proj")
    shapes = dict(zip(names, ((4, 5), (4, 5), (5, 4)), strict=True))
    file = {
        f"model.layers.1.mlp.experts.{i}.{name}.weight": torch.randn(shapes[name])
        for i in range(11)  # 10 comes after 9, not after 1
        for name in names
    }
    gather = SeparateExperts(names)
    stacked = gather({**file, "model.norm.weight": torch.ones(5)})
    assert stacked.keys() == {
        "model.norm.weight",
        "model.layers.1.mlp.experts.gate_up_proj",
        "model.layers.1.mlp.experts.down_proj",
    }
    both = stacked["model.layers.1.mlp.experts.gate_up_proj"]
    for i in range(11):
        start = f"model.layers.1.mlp.experts.{i}."
        assert torch.equal(both[i, :4], file[start + "gate_proj.weight"])
        assert torch.equal(both[i, 4:], file[start + "up_proj.weight"])
    assert gather(stacked).keys() == stacked.keys()
    del file["model.layers.1.mlp.experts.3.up_proj.weight"]
    with pytest.raises(ValueError, match="need 33 tensors"):
        gather(file)
    with pytest.raises(ValueError, match="has 1;"):  # at once, whatever the number
        gather({"model.layers.0.mlp.experts.999999.up_proj.weight": torch.ones(1)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 9}, "top_k 9 is more"),
        ({"n_experts": 0}, "n_experts"),
        ({"size": "9x9b"}, "unknown size"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        mixtral(**{"n_layers": 1, **changes})
