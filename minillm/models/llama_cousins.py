"""LLaMA's cousins, each by what it hands to the same class: Mistral, Qwen2, Qwen3, Gemma, Baichuan.

A name such as "model.layers.{i}." in the formats below is LLaMA's; only what differs is written.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from minillm.models.llama import LLAMA_FORMAT, Llama, LlamaConfig, llama_block, pick
from minillm.nn.ffn import geglu_tanh
from minillm.nn.linear import check_sizes
from minillm.nn.norms import OffsetRMSNorm, RMSNorm
from minillm.nn.ops import Ops
from minillm.nn.relative import alibi_attention
from minillm.nn.sparse import sliding_window


def _like_llama(model_type: str, architecture: str, **settings: Any) -> dict[str, Any]:
    """LLaMA's fixed settings under another name; `mlp_bias` is LLaMA's alone."""
    fixed = {k: v for k, v in LLAMA_FORMAT.fixed.items() if k != "mlp_bias"}
    return {**fixed, "model_type": model_type, "architectures": [architecture], **settings}


# --------------------------------------------------------------------------------------- Mistral


@dataclass(frozen=True)
class MistralConfig(LlamaConfig):
    """A LLaMA whose tokens see the last `window` tokens only, their own among them."""

    window: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(window=self.window)


MISTRAL_FORMAT = replace(
    LLAMA_FORMAT,
    config={**LLAMA_FORMAT.config, "sliding_window": "window"},
    fixed=_like_llama("mistral", "MistralForCausalLM"),
    defaults={**LLAMA_FORMAT.defaults, "num_key_value_heads": 8, "sliding_window": 4096},
)
MISTRAL_0_2_FORMAT = replace(
    LLAMA_FORMAT,
    fixed=_like_llama("mistral", "MistralForCausalLM", sliding_window=None),
    defaults=MISTRAL_FORMAT.defaults,
)
MISTRAL_SIZES = {
    "7b": {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "d_ff": 14336}
}


def mistral(size: str = "7b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Mistral 7B v0.1 (Jiang et al. 2023): attention in a sliding window of 4096 tokens."""
    numbers = {"vocab_size": 32000, "max_seq_len": 32768, **pick(MISTRAL_SIZES, size)}
    config = MistralConfig(**{**numbers, **overrides})
    block = partial(llama_block, attention=sliding_window(config.window))
    return Llama(config, block=block, hub_format=MISTRAL_FORMAT, ops=ops)


def mistral_0_2(size: str = "7b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Mistral 7B v0.2 and later: no window, a slower RoPE; a Llama 3 with fewer tokens."""
    numbers = {"vocab_size": 32000, "max_seq_len": 32768, "rope_theta": 1e6}
    config = LlamaConfig(**{**numbers, **pick(MISTRAL_SIZES, size), **overrides})
    return Llama(config, hub_format=MISTRAL_0_2_FORMAT, ops=ops)


# ----------------------------------------------------------------------------------- Qwen2, Qwen3


def _all_full(layers: Any) -> bool:
    """Whether `layer_types` says that no layer has a window."""
    return layers is None or (
        isinstance(layers, list) and all(one == "full_attention" for one in layers)
    )


_QWEN = {**LLAMA_FORMAT.accepted, "layer_types": _all_full}
QWEN2_FORMAT = replace(
    LLAMA_FORMAT,
    accepted=_QWEN,
    keys={
        **LLAMA_FORMAT.keys,
        "model.layers.{i}.self_attn.q_proj.bias": "blocks.{i}.attention.query.bias",
        "model.layers.{i}.self_attn.k_proj.bias": "blocks.{i}.attention.key.bias",
        "model.layers.{i}.self_attn.v_proj.bias": "blocks.{i}.attention.value.bias",
    },
    config={k: v for k, v in LLAMA_FORMAT.config.items() if k != "head_dim"},
    fixed={
        k: v
        for k, v in _like_llama("qwen2", "Qwen2ForCausalLM", use_sliding_window=False).items()
        if k != "attention_bias"  # it has no such setting: there is always one
    },
)
QWEN3_FORMAT = replace(
    LLAMA_FORMAT,
    accepted=_QWEN,
    keys={
        **LLAMA_FORMAT.keys,
        "model.layers.{i}.self_attn.q_norm.weight": "blocks.{i}.attention.query_norm.weight",
        "model.layers.{i}.self_attn.k_norm.weight": "blocks.{i}.attention.key_norm.weight",
    },
    fixed=_like_llama("qwen3", "Qwen3ForCausalLM", use_sliding_window=False),
)
_TIED = {"vocab_size": 151936, "tied": True}
QWEN2_SIZES = {
    "0.5b": {"d_model": 896, "n_layers": 24, "n_heads": 14, "n_kv_heads": 2, "d_ff": 4864, **_TIED},
    "1.5b": {
        "d_model": 1536, "n_layers": 28, "n_heads": 12, "n_kv_heads": 2, "d_ff": 8960, **_TIED
    },
    "7b": {"d_model": 3584, "n_layers": 28, "n_heads": 28, "n_kv_heads": 4, "d_ff": 18944},
    "72b": {"d_model": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "d_ff": 29568},
}  # fmt: skip
QWEN3_SIZES = {
    "0.6b": {"d_model": 1024, "n_layers": 28, "n_heads": 16, "d_ff": 3072, "tied": True},
    "1.7b": {"d_model": 2048, "n_layers": 28, "n_heads": 16, "d_ff": 6144, "tied": True},
    "4b": {"d_model": 2560, "n_layers": 36, "n_heads": 32, "d_ff": 9728, "tied": True},
    "8b": {"d_model": 4096, "n_layers": 36, "n_heads": 32, "d_ff": 12288},
    "14b": {"d_model": 5120, "n_layers": 40, "n_heads": 40, "d_ff": 17408},
    "32b": {"d_model": 5120, "n_layers": 64, "n_heads": 64, "d_ff": 25600},
}


def qwen2(size: str = "0.5b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Qwen2 (Yang et al. 2024): biases on queries, keys and values, and nowhere else."""
    numbers = {"vocab_size": 152064, "max_seq_len": 32768, "norm_eps": 1e-6, "rope_theta": 1e6}
    config = LlamaConfig(**{**numbers, **pick(QWEN2_SIZES, size), **overrides})
    block = partial(llama_block, qkv_bias=True)
    return Llama(config, block=block, hub_format=QWEN2_FORMAT, ops=ops)


def qwen3(size: str = "0.6b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Qwen3 (Yang et al. 2025): no biases, but a norm on each head's queries and keys."""
    numbers = {"vocab_size": 151936, "max_seq_len": 40960, "norm_eps": 1e-6, "rope_theta": 1e6}
    numbers |= {"n_kv_heads": 8, "d_head": 128, **pick(QWEN3_SIZES, size)}
    block = partial(llama_block, head_norm=RMSNorm)
    return Llama(
        LlamaConfig(**{**numbers, **overrides}), block=block, hub_format=QWEN3_FORMAT, ops=ops
    )


# ----------------------------------------------------------------------------------------- Gemma

GEMMA_FORMAT = replace(
    LLAMA_FORMAT,
    fixed=_like_llama("gemma", "GemmaForCausalLM", hidden_act="gelu_pytorch_tanh"),
    accepted={**LLAMA_FORMAT.accepted, "use_bidirectional_attention": (None, False)},
    defaults={**LLAMA_FORMAT.defaults, "tie_word_embeddings": True},
)
GEMMA_SIZES = {
    "2b": {"d_model": 2048, "n_layers": 18, "n_heads": 8, "n_kv_heads": 1, "d_ff": 16384},
    "7b": {"d_model": 3072, "n_layers": 28, "n_heads": 16, "n_kv_heads": 16, "d_ff": 24576},
}


def gemma(size: str = "2b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Gemma (Gemma Team 2024): GeGLU, norms that scale by 1 + weight, token vectors times √d."""
    numbers = {"vocab_size": 256000, "max_seq_len": 8192, "norm_eps": 1e-6, "tied": True}
    numbers |= {"d_head": 256, **pick(GEMMA_SIZES, size)}
    config = LlamaConfig(**{**numbers, **overrides})
    return Llama(
        config,
        block=partial(llama_block, norm=OffsetRMSNorm, gated=geglu_tanh),
        norm=OffsetRMSNorm,
        embedding_scale=config.d_model**0.5,
        hub_format=GEMMA_FORMAT,
        ops=ops,
    )


# -------------------------------------------------------------------------------------- Baichuan

_PACKED = {
    name: ours
    for name, ours in LLAMA_FORMAT.keys.items()
    if not name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
}
BAICHUAN_FORMAT = replace(
    LLAMA_FORMAT,
    keys={
        **_PACKED,
        "model.layers.{i}.self_attn.W_pack.weight": (
            "blocks.{i}.attention.query.weight",
            "blocks.{i}.attention.key.weight",
            "blocks.{i}.attention.value.weight",
        ),
    },
    config={
        k: v
        for k, v in LLAMA_FORMAT.config.items()
        if k not in ("num_key_value_heads", "head_dim", "rope_parameters.rope_theta")
    },
    fixed={
        "model_type": "baichuan",
        "architectures": ["BaichuanForCausalLM"],
        "hidden_act": "silu",
    },
)
BAICHUAN_SIZES = {
    "7b": {"d_model": 4096, "n_layers": 32, "n_heads": 32, "d_ff": 11008},
    "13b": {"d_model": 5120, "n_layers": 40, "n_heads": 40, "d_ff": 13696},
}


def baichuan_7b(*, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Baichuan-7B (Baichuan 2023): LLaMA with 64,000 tokens, and q, k, v stored in one matrix."""
    numbers = {"vocab_size": 64000, "max_seq_len": 4096, "norm_eps": 1e-6}
    config = LlamaConfig(**{**numbers, **BAICHUAN_SIZES["7b"], **overrides})
    return Llama(config, hub_format=BAICHUAN_FORMAT, ops=ops)


def baichuan_13b(*, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Baichuan-13B (Baichuan 2023): as the 7B, but ALiBi in the place of RoPE."""
    numbers = {"vocab_size": 64000, "max_seq_len": 4096, "norm_eps": 1e-6}
    config = LlamaConfig(**{**numbers, **BAICHUAN_SIZES["13b"], **overrides})
    biased = alibi_attention(config.n_heads, attention=(ops or Ops()).attention)
    block = partial(llama_block, rotary=lambda config: None, attention=biased)
    return Llama(config, block=block, hub_format=BAICHUAN_FORMAT, ops=ops)
