"""DeepSeek-V2 and V3: published sizes, settings, and what their cache costs."""

import pytest
import torch

from minillm.generation import generate
from minillm.hub.configs import config_fields, hf_config
from minillm.models.deepseek import DeepSeekConfig, deepseek_v2, deepseek_v3
from minillm.models.deepseek_format import V2_FORMAT, V3_FORMAT, PerHead, Yarn

TINY = {
    "vocab_size": 19, "max_seq_len": 40, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 20,
    "kv_rank": 6, "d_nope": 4, "d_rope": 4, "d_value": 3, "n_experts": 4, "top_k": 2,
    "d_expert": 5, "n_groups": 2, "top_groups": 1, "n_dense": 1,
}  # fmt: skip


def total_and_active(model):
    """All parameters, and those that one token uses, in billions."""
    c, experts = model.config, model.blocks[-1].ffn.experts
    total = sum(p.numel() for p in model.parameters())
    each = sum(p.numel() for p in experts.parameters()) // c.n_experts
    idle = (c.n_layers - c.n_dense) * (c.n_experts - c.top_k) * each
    return total / 1e9, (total - idle) / 1e9


@pytest.mark.parametrize(
    ("make", "total", "active"),
    [
        (lambda: deepseek_v2("lite"), 15.7, 2.7),
        (lambda: deepseek_v2("236b"), 235.7, 21.4),
        (deepseek_v3, 671.0, 37.6),
    ],
)
def test_published_sizes(make, total, active):
    """V2: "236B total, 21B activated"; V3: "671B, 37B" (its input table, 0.9B, is not counted)."""
    with torch.device("meta"):
        found = total_and_active(make())
    assert found == pytest.approx((total, active), abs=0.1)


def test_the_cache_is_576_numbers_a_token_and_layer():
    with torch.device("meta"):
        config = deepseek_v3(n_layers=4).config
    per_layer = config.kv_rank + config.d_rope
    assert per_layer == 512 + 64
    model = deepseek_v3(**TINY, q_rank=5)
    cache = model.new_cache(3, 7)
    assert cache.n_bytes == 2 * 3 * 7 * (6 + 4) * 4


@pytest.mark.parametrize("preset", [deepseek_v2, deepseek_v3])
def test_generation_brings_its_own_cache(preset):
    torch.manual_seed(0)
    model = preset(**TINY, q_rank=None).eval()
    prompt = torch.randint(19, (2, 5))
    with_cache = generate(model, prompt, max_new_tokens=20)
    assert torch.equal(with_cache, generate(model, prompt, max_new_tokens=20, cache=None))


def test_a_dense_first_block_and_experts_afterwards():
    model = deepseek_v3(**{**TINY, "n_layers": 3}, n_shared=3)
    assert not hasattr(model.blocks[0].ffn, "experts")
    assert model.blocks[1].ffn.shared.gate.weight.shape == (15, 16)
    assert len(model.blocks[2].ffn.experts.gate) == 4


RELEASED = {
    "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 0.707,
    "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1,
}  # fmt: skip


def test_settings_of_released_files_are_read():
    """As DeepSeek's own config.json has them: `rope_scaling`, `rope_theta` beside it."""
    model = deepseek_v2(**TINY)
    settings = hf_config(model)
    assert "yarn" not in str(settings)
    old = {k: v for k, v in settings.items() if k != "rope_parameters"}
    old |= {"rope_scaling": RELEASED, "rope_theta": 10000, "topk_method": "greedy"}
    config = DeepSeekConfig(**config_fields(V2_FORMAT, old, DeepSeekConfig))
    assert config.yarn == Yarn(40, 4096, 0.707)
    assert config.rope_theta == 10000
    plain = DeepSeekConfig(**config_fields(V2_FORMAT, settings, DeepSeekConfig))
    assert plain == model.config


@pytest.mark.parametrize("yarn", [None, Yarn(4, 16, 0.5)])
@pytest.mark.parametrize("n_dense", [0, 2])
def test_settings_survive_a_round_trip(yarn, n_dense):
    model = deepseek_v3(**{**TINY, "n_dense": n_dense}, yarn=yarn)
    found = config_fields(V3_FORMAT, hf_config(model), DeepSeekConfig)
    assert DeepSeekConfig(**found) == model.config


@pytest.mark.parametrize(
    "change",
    [
        {"mscale": 1.0},
        {"beta_fast": 16},
        {"type": "linear"},
        {"factor": "forty"},
        {"factor": float("nan")},
        {"original_max_position_embeddings": 4096.5},
    ],
)
def test_another_yarn_is_refused(change):
    old = {k: v for k, v in hf_config(deepseek_v2(**TINY)).items() if k != "rope_parameters"}
    with pytest.raises(ValueError, match="rope_parameters"):
        config_fields(V2_FORMAT, {**old, "rope_scaling": {**RELEASED, **change}}, DeepSeekConfig)


def test_keys_and_values_of_each_head_are_side_by_side_in_their_file():
    config = DeepSeekConfig(**TINY)
    theirs = torch.randn(2 * (4 + 3), 6)
    key, value = PerHead().split(theirs, config)
    assert torch.equal(key, torch.cat([theirs[:4], theirs[7:11]]))
    assert torch.equal(value, torch.cat([theirs[4:7], theirs[11:]]))
    assert torch.equal(PerHead().join((key, value), config), theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_dense": 3}, "n_dense 3 of n_layers 2"),
        ({"kv_rank": 0}, "kv_rank"),
        ({"q_rank": 0}, "q_rank"),
        ({"n_groups": 3}, "n_groups"),
        ({"top_k": 5}, "top_k"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        deepseek_v3(**{**TINY, **changes})
