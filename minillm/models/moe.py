"""Mixtral (Jiang et al. 2024) and Qwen1.5-MoE / Qwen2-MoE (Yang et al. 2024): LLaMAs of experts."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minillm.models.llama import (
    LLAMA_FORMAT,
    Llama,
    LlamaConfig,
    pick,
    plain_rotary,
)
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PreNormBlock
from minillm.nn.ffn import GatedFeedForward
from minillm.nn.gating import top_k_gate
from minillm.nn.linear import check_sizes
from minillm.nn.moe import GatedExperts, MixtureOfExperts, Router, SharedExpert
from minillm.nn.norms import RMSNorm
from minillm.nn.ops import Ops


@dataclass(frozen=True)
class MixtralConfig(LlamaConfig):
    """A LLaMA with `n_experts` feed-forward layers of width `d_ff` a block, `top_k` in use."""

    n_experts: int = 8
    top_k: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(n_experts=self.n_experts, top_k=self.top_k)
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k {self.top_k} is more than n_experts {self.n_experts}")


@dataclass(frozen=True)
class QwenMoEConfig(MixtralConfig):
    """Many small experts of width `d_ff`, and one of width `d_shared` that every token uses."""

    d_shared: int = 5632
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(d_shared=self.d_shared)


def mixtral_ffn(c: MixtralConfig, ops: Ops) -> MixtureOfExperts:
    """Softmax, the top k, divided by their sum."""
    router = Router(c.d_model, c.n_experts, partial(top_k_gate, k=c.top_k))
    return MixtureOfExperts(router, GatedExperts(c.n_experts, c.d_model, c.d_ff, gated=ops.swiglu))


def qwen_moe_ffn(c: QwenMoEConfig, ops: Ops) -> MixtureOfExperts:
    """Softmax, the top k as they are, and a shared expert behind a gate of its own."""
    gate = partial(top_k_gate, k=c.top_k, renormalize=False)
    shared = GatedFeedForward(c.d_model, c.d_shared, gated=ops.swiglu, linear=ops.linear)
    return MixtureOfExperts(
        Router(c.d_model, c.n_experts, gate),
        GatedExperts(c.n_experts, c.d_model, c.d_ff, gated=ops.swiglu),
        SharedExpert(c.d_model, shared, linear=ops.linear),
    )


def moe_block(
    c: MixtralConfig,
    ops: Ops,
    *,
    ffn: Callable[[Any, Ops], nn.Module] = mixtral_ffn,
    attention: Callable[..., Tensor] | None = None,
    qkv_bias: bool = False,
) -> PreNormBlock:
    """LLaMA's block with `ffn(config, ops)`, a mixture of experts, in the feed-forward's place."""
    return PreNormBlock(
        MultiHeadAttention(
            c.d_model,
            c.n_heads,
            n_kv_heads=c.n_kv_heads,
            d_head=c.d_head,
            bias=qkv_bias,
            output_bias=False,
            rotary=plain_rotary(c),
            attention=attention or ops.attention,
            linear=ops.linear,
        ),
        ffn(c, ops),
        RMSNorm(c.d_model, eps=c.norm_eps, op=ops.rms_norm),
        RMSNorm(c.d_model, eps=c.norm_eps, op=ops.rms_norm),
    )


def init_experts(model: nn.Module, std: float = 0.02) -> None:
    """Weights of experts and routers from N(0, std²), as those of the other layers."""
    for part in model.modules():
        if isinstance(part, GatedExperts | Router):
            for weight in part.parameters(recurse=False):
                nn.init.normal_(weight, std=std)


@dataclass(frozen=True)
class SeparateExperts:
    """Published files hold experts one by one, `experts.3.w1.weight`: this stacks them (`gather`).

    `names` are those of gate, up and down; `renamed` is what the files call the layer. Files that
    hold stacked experts already pass through.
    """

    names: tuple[str, str, str]
    renamed: tuple[str, str] = ("", "")

    def __call__(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors under the names, and in the shapes, that transformers has in memory."""
        found: dict[str, Tensor] = {}
        layers: dict[str, dict[tuple[int, str], Tensor]] = {}
        for name, tensor in state_dict.items():
            name = name.replace(*self.renamed) if self.renamed[0] else name
            one = re.fullmatch(r"(.*\.experts\.)(\d{1,6})\.(\w+)\.weight", name)
            if one and one[3] in self.names:
                layers.setdefault(one[1], {})[int(one[2]), one[3]] = tensor
            else:
                found[name] = tensor
        for start, pieces in layers.items():
            last = max(i for i, _ in pieces)
            if len(pieces) != 3 * (last + 1):
                raise ValueError(
                    f"{start}0 to {last} need {3 * (last + 1)} tensors, {self.names} of each, and "
                    f"the file has {len(pieces)}; copy all of its parts again"
                )
            gate, up, down = (
                torch.stack([pieces[i, name] for i in range(last + 1)]) for name in self.names
            )
            found[start + "gate_up_proj"] = torch.cat([gate, up], dim=1)
            found[start + "down_proj"] = down
        return found


class StackedPair:
    """Their `gate_up_proj` (E, 2f, d) is our gate and up, (E, f, d) each; a `Layout`."""

    def split(self, tensor: Tensor, config: Any) -> tuple[Tensor, Tensor]:
        """Cut the second axis in half; ValueError unless it is even."""
        if tensor.ndim != 3 or tensor.shape[1] % 2:
            raise ValueError(f"gate_up_proj is (E, 2f, d), got {tuple(tensor.shape)}")
        return tensor.chunk(2, dim=1)

    def join(self, parts: tuple[Tensor, ...], config: Any) -> Tensor:
        """Gates above ups, for each expert."""
        return torch.cat(parts, dim=1)


def _any(value: Any) -> bool:
    """A setting of training, which says nothing about the model."""
    return True


_MLP, _FFN = "model.layers.{i}.mlp.", "blocks.{i}.ffn."
_THEIRS, _OURS = "model.layers.{i}.self_attn.", "blocks.{i}.attention."
DENSE_KEYS = {theirs: ours for theirs, ours in LLAMA_FORMAT.keys.items() if ".mlp." in theirs}
ATTENTION_KEYS = {k: v for k, v in LLAMA_FORMAT.keys.items() if k not in DENSE_KEYS}
EXPERT_KEYS = {
    _MLP + "gate.weight": _FFN + "router.weight",
    _MLP + "experts.gate_up_proj": (_FFN + "experts.gate", _FFN + "experts.up"),
    _MLP + "experts.down_proj": _FFN + "experts.down",
}
MIXTRAL_FORMAT = replace(
    LLAMA_FORMAT,
    keys={**ATTENTION_KEYS, **EXPERT_KEYS},
    layouts={"experts.gate_up_proj": StackedPair()},
    gather=SeparateExperts(("w1", "w3", "w2"), (".block_sparse_moe.", ".mlp.")),
    config={
        **LLAMA_FORMAT.config,
        "num_local_experts": "n_experts",
        "num_experts_per_tok": "top_k",
    },
    fixed={
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "hidden_act": "silu",
        "sliding_window": None,
        "rope_parameters.rope_type": "default",
    },
    accepted={"attention_dropout": 0.0, "router_aux_loss_coef": _any, "router_jitter_noise": _any},
    defaults={
        **LLAMA_FORMAT.defaults,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_parameters.rope_theta": 1e6,
    },
)
QWEN2_MOE_FORMAT = replace(
    MIXTRAL_FORMAT,
    gather=SeparateExperts(("gate_proj", "up_proj", "down_proj")),
    keys={
        **MIXTRAL_FORMAT.keys,
        **{
            f"{_THEIRS}{theirs}_proj.bias": f"{_OURS}{ours}.bias"
            for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"))
        },
        **{
            f"{_MLP}shared_expert.{part}_proj.weight": f"{_FFN}shared.ffn.{part}.weight"
            for part in ("gate", "up", "down")
        },
        _MLP + "shared_expert_gate.weight": _FFN + "shared.share.weight",
    },
    config={
        **{k: v for k, v in LLAMA_FORMAT.config.items() if v != "d_ff"},
        "moe_intermediate_size": "d_ff",
        "shared_expert_intermediate_size": "d_shared",
        "num_experts": "n_experts",
        "num_experts_per_tok": "top_k",
    },
    fixed={
        "model_type": "qwen2_moe",
        "architectures": ["Qwen2MoeForCausalLM"],
        "hidden_act": "silu",
        "qkv_bias": True,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "use_sliding_window": False,
        "rope_parameters.rope_type": "default",
    },
    accepted={
        "attention_dropout": 0.0,
        "mlp_only_layers": lambda layers: not layers,
        "layer_types": lambda kinds: kinds is None or set(kinds) <= {"full_attention"},
        **dict.fromkeys(
            ("router_aux_loss_coef", "sliding_window", "max_window_layers", "intermediate_size"),
            _any,
        ),
    },
    defaults={
        **LLAMA_FORMAT.defaults,
        "qkv_bias": True,
        "rms_norm_eps": 1e-6,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts_per_tok": 4,
        "num_experts": 60,
    },
)

MIXTRAL_SIZES = {
    "8x7b": {"d_model": 4096, "n_layers": 32, "n_heads": 32, "d_ff": 14336, "max_seq_len": 32768},
    "8x22b": {
        "vocab_size": 32768, "d_model": 6144, "n_layers": 56, "n_heads": 48, "d_ff": 16384,
        "max_seq_len": 65536,
    },
}  # fmt: skip
QWEN_MOE_SIZES = {
    "1.5-a2.7b": {"d_model": 2048, "n_layers": 24, "n_heads": 16, "d_ff": 1408, "d_shared": 5632,
                  "n_experts": 60, "top_k": 4, "max_seq_len": 8192},
    "2-57b-a14b": {"d_model": 3584, "n_layers": 28, "n_heads": 28, "n_kv_heads": 4, "d_ff": 2560,
                   "d_shared": 20480, "n_experts": 64, "top_k": 8, "max_seq_len": 32768},
}  # fmt: skip


def mixtral(size: str = "8x7b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Mixtral of experts: 8x7b (46.7B parameters, 12.9B of them used by a token) and 8x22b."""
    numbers = {"vocab_size": 32000, "n_kv_heads": 8, "rope_theta": 1e6}
    config = MixtralConfig(**{**numbers, **pick(MIXTRAL_SIZES, size), **overrides})
    model = Llama(config, block=moe_block, hub_format=MIXTRAL_FORMAT, ops=ops)
    init_experts(model)
    return model


def qwen2_moe(size: str = "1.5-a2.7b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B: fine-grained experts and a shared one."""
    numbers = {"vocab_size": 151936, "rope_theta": 1e6}
    config = QwenMoEConfig(**{**numbers, **pick(QWEN_MOE_SIZES, size), **overrides})
    block = partial(moe_block, ffn=qwen_moe_ffn, qkv_bias=True)
    model = Llama(config, block=block, hub_format=QWEN2_MOE_FORMAT, ops=ops)
    init_experts(model)
    return model


def moe_tiny(vocab_size: int, *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """A Mixtral to train on a laptop: 8 experts of width 128, two used at once."""
    numbers = {"max_seq_len": 128, "d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 128}
    numbers = {"n_kv_heads": 4, "rope_theta": 1e4, **numbers, **overrides}
    return mixtral(vocab_size=vocab_size, ops=ops, **numbers)
