"""What transformers calls the tensors and settings of DeepSeek-V2 and V3, and their layouts."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from minillm.models.hub_format import HubFormat, Setting
from minillm.models.moe import DENSE_KEYS, EXPERT_KEYS, SeparateExperts, StackedPair


@dataclass(frozen=True)
class Yarn:
    """YaRN as released files have it: `factor` times `trained_len` tokens, and a temperature."""

    factor: float | int
    trained_len: int = 4096
    mscale: float | int = 1.0


class PerHead:
    """Their `kv_b_proj` has each head's key rows, then its value rows; a `Layout`."""

    def split(self, tensor: Tensor, config: Any) -> tuple[Tensor, Tensor]:
        """All heads' keys, all heads' values; ValueError for another number of rows."""
        heads = tensor.unflatten(0, (config.n_heads, config.d_nope + config.d_value))
        key, value = heads.split([config.d_nope, config.d_value], dim=1)
        return key.flatten(0, 1), value.flatten(0, 1)

    def join(self, parts: tuple[Tensor, ...], config: Any) -> Tensor:
        """Keys and values head by head."""
        heads = [part.unflatten(0, (config.n_heads, -1)) for part in parts]
        return torch.cat(heads, dim=1).flatten(0, 1)


_LAYER, _OURS = "model.layers.{i}.", "blocks.{i}."
_ATTENTION = {
    "q_proj.weight": "query.weight",
    "q_a_proj.weight": "query_down.weight",
    "q_a_layernorm.weight": "query_norm.weight",
    "q_b_proj.weight": "query_up.weight",
    "kv_a_proj_with_mqa.weight": ("latent.weight", "rope_key.weight"),
    "kv_a_layernorm.weight": "latent_norm.weight",
    "kv_b_proj.weight": ("key.weight", "value.weight"),
    "o_proj.weight": "output.weight",
}


def _whole(value: Any) -> int:
    """A whole number, 0 or more."""
    if type(value) is not int or value < 0:
        raise ValueError(f"first_k_dense_replace={value!r:.60} is not a whole number, 0 or more")
    return value


def _read_yarn(rope: Any) -> Yarn | None:
    """YaRN's numbers, None for a plain RoPE; ValueError for another rule or other borders."""
    rope = {} if rope is None else rope
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    if kind == "default":
        return None
    numbers = [rope.get(name, 0) for name in _YARN_NAMES] if kind == "yarn" else []
    good = kind == "yarn" and all(type(n) in (int, float) and 0 < n < 1e9 for n in numbers)
    if (
        not good
        or numbers[2] != numbers[3]
        or numbers[4:] != [32, 1]
        or type(numbers[1]) is not int
    ):
        raise ValueError(f"rope_parameters={rope!r:.200} is not a YaRN as DeepSeek has it")
    return Yarn(*numbers[:3])


def _write_yarn(yarn: Yarn | None) -> dict[str, Any]:
    if yarn is None:
        return {"rope_type": "default"}
    numbers = (yarn.factor, yarn.trained_len, yarn.mscale, yarn.mscale, 32, 1)
    return {"rope_type": "yarn", **dict(zip(_YARN_NAMES, numbers, strict=True))}


# the weights that losses and kernels of training take, and what an older file repeats
_IGNORED = ("aux_loss_alpha", "seq_aux", "scoring_func", "moe_layer_freq", "ep_size",
            "pretraining_tp", "num_nextn_predict_layers", "head_dim")  # fmt: skip
_YARN_NAMES = (
    "factor",
    "original_max_position_embeddings",
    "mscale",
    "mscale_all_dim",
    "beta_fast",
    "beta_slow",
)
_CONFIG = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_seq_len",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "d_ff",
    "kv_lora_rank": "kv_rank",
    "q_lora_rank": "q_rank",
    "qk_nope_head_dim": "d_nope",
    "qk_rope_head_dim": "d_rope",
    "v_head_dim": "d_value",
    "n_routed_experts": "n_experts",
    "num_experts_per_tok": "top_k",
    "moe_intermediate_size": "d_expert",
    "n_shared_experts": "n_shared",
    "first_k_dense_replace": Setting("n_dense", _whole, int),
    "n_group": "n_groups",
    "topk_group": "top_groups",
    "routed_scaling_factor": "routed_scale",
    "rms_norm_eps": "norm_eps",
    "rope_parameters.rope_theta": "rope_theta",
    "rope_parameters": Setting("yarn", _read_yarn, _write_yarn),
}


def _ours(names: str | tuple[str, ...]) -> str | tuple[str, ...]:
    start = _OURS + "attention."
    return start + names if isinstance(names, str) else tuple(start + name for name in names)


V2_FORMAT = HubFormat(
    keys={
        "model.embed_tokens.weight": "tokens.weight",
        _LAYER + "input_layernorm.weight": _OURS + "attention_norm.weight",
        **{f"{_LAYER}self_attn.{theirs}": _ours(names) for theirs, names in _ATTENTION.items()},
        _LAYER + "post_attention_layernorm.weight": _OURS + "ffn_norm.weight",
        **DENSE_KEYS,
        **EXPERT_KEYS,
        **{
            f"{_LAYER}mlp.shared_experts.{part}_proj.weight": f"{_OURS}ffn.shared.{part}.weight"
            for part in ("gate", "up", "down")
        },
        "model.norm.weight": "final_norm.weight",
        "lm_head.weight": "output.weight",
    },
    layouts={"experts.gate_up_proj": StackedPair(), "kv_b_proj.weight": PerHead()},
    gather=SeparateExperts(("gate_proj", "up_proj", "down_proj")),
    obsolete=("rotary_emb.inv_freq",),
    prefix="model.",
    config=_CONFIG,
    fixed={
        "model_type": "deepseek_v2",
        "architectures": ["DeepseekV2ForCausalLM"],
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "topk_method": ("group_limited_greedy", "greedy"),
        "norm_topk_prob": False,
        "mlp_bias": False,
    },
    accepted={
        "attention_dropout": 0.0,
        **dict.fromkeys(_IGNORED, lambda value: True),
    },
    aliases={"rope_theta": "rope_parameters.rope_theta", "rope_scaling": "rope_parameters"},
    defaults={
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_parameters": None,
        "rope_parameters.rope_theta": 10000.0,
    },
)
V3_FORMAT = replace(
    V2_FORMAT,
    keys={
        **V2_FORMAT.keys,
        _LAYER + "mlp.gate.e_score_correction_bias": _OURS + "ffn.router.bias",
    },
    fixed={
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "norm_topk_prob": True,
        "rope_interleave": True,
    },
    extra={"num_nextn_predict_layers": 0},
)
