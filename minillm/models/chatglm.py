"""ChatGLM2-6B (2023) and GLM-4-9B (2024): causal decoders, without parts A and B.

Pre-norm blocks with RMSNorm, SwiGLU, biases on queries, keys and values only, rotations of half of
each head in neighboring pairs, and two key-value heads for thirty-two query heads.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from minillm.models.causal_lm import CausalLM
from minillm.models.hub_format import ROPE_ALIASES, HubFormat
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PreNormBlock
from minillm.nn.ffn import GatedFeedForward
from minillm.nn.linear import check_sizes
from minillm.nn.norms import RMSNorm
from minillm.nn.ops import Ops
from minillm.nn.rotary import Rotary, rotary_frequencies, rotate_pairs


@dataclass(frozen=True)
class ChatGLMConfig:
    """The numbers that define a ChatGLM2 or GLM-4; `rotary_share` of each head is turned."""

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    norm_eps: float = 1e-5
    rope_theta: float | int = 10_000.0
    rotary_share: float | int = 0.5

    def __post_init__(self) -> None:
        names = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "n_kv_heads")
        names += ("d_head", "d_ff")
        check_sizes(**{name: getattr(self, name) for name in names})
        if not 0 < self.rotary_share <= 1:
            raise ValueError(f"rotary_share must be in (0, 1], got {self.rotary_share}")


GLM4_FORMAT = HubFormat(
    keys={
        "model.embed_tokens.weight": "tokens.weight",
        **{
            f"model.layers.{{i}}.self_attn.{theirs}_proj.{kind}": (
                f"blocks.{{i}}.attention.{ours}.{kind}"
            )
            for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"))
            for kind in ("weight", "bias")
        },
        "model.layers.{i}.self_attn.o_proj.weight": "blocks.{i}.attention.output.weight",
        "model.layers.{i}.mlp.gate_up_proj.weight": (
            "blocks.{i}.ffn.gate.weight",
            "blocks.{i}.ffn.up.weight",
        ),
        "model.layers.{i}.mlp.down_proj.weight": "blocks.{i}.ffn.down.weight",
        "model.layers.{i}.input_layernorm.weight": "blocks.{i}.attention_norm.weight",
        "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.ffn_norm.weight",
        "model.norm.weight": "final_norm.weight",
        "lm_head.weight": "output.weight",
    },
    config={
        "vocab_size": "vocab_size",
        "max_position_embeddings": "max_seq_len",
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "head_dim": "d_head",
        "intermediate_size": "d_ff",
        "rms_norm_eps": "norm_eps",
        "rope_parameters.rope_theta": "rope_theta",
        "rope_parameters.partial_rotary_factor": "rotary_share",
    },
    fixed={
        "model_type": "glm",
        "architectures": ["GlmForCausalLM"],
        "hidden_act": "silu",
        "attention_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters.rope_type": "default",
    },
    accepted={"attention_dropout": 0.0},
    extra={"pad_token_id": None},
    prefix="model.",
    obsolete=("rotary_emb.inv_freq",),
    aliases={**ROPE_ALIASES, "partial_rotary_factor": "rope_parameters.partial_rotary_factor"},
    defaults={
        "rope_parameters.rope_theta": 10_000.0,
        "rope_parameters.rope_type": "default",
        "rope_parameters.partial_rotary_factor": 0.5,
    },
)


def chatglm(config: ChatGLMConfig, *, ops: Ops | None = None) -> CausalLM:
    """The model of these numbers; weights N(0, 0.02²), biases 0."""
    c, ops = config, ops or Ops()

    def norm() -> nn.Module:
        return RMSNorm(c.d_model, eps=c.norm_eps, op=ops.rms_norm)

    def block() -> nn.Module:
        frequencies = rotary_frequencies(int(c.d_head * c.rotary_share), base=c.rope_theta)
        attention = MultiHeadAttention(
            c.d_model,
            c.n_heads,
            n_kv_heads=c.n_kv_heads,
            d_head=c.d_head,
            output_bias=False,
            rotary=Rotary(frequencies, rotate=rotate_pairs),
            attention=ops.attention,
            linear=ops.linear,
        )
        ffn = GatedFeedForward(c.d_model, c.d_ff, gated=ops.swiglu, linear=ops.linear)
        return PreNormBlock(attention, ffn, norm(), norm())

    model = CausalLM(
        c,
        (block() for _ in range(c.n_layers)),
        final_norm=norm(),
        tied=False,
        hub_format=GLM4_FORMAT,
        ops=ops,
    )
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


_SHARED = {"d_model": 4096, "n_heads": 32, "n_kv_heads": 2, "d_head": 128, "d_ff": 13_696}


def chatglm2(*, ops: Ops | None = None, **overrides: Any) -> CausalLM:
    """ChatGLM2-6B (June 2023): 28 blocks, 32k positions; `overrides` change config fields."""
    numbers = {"vocab_size": 65_024, "max_seq_len": 32_768, "n_layers": 28, **_SHARED}
    return chatglm(ChatGLMConfig(**{**numbers, **overrides}), ops=ops)


def glm4(*, ops: Ops | None = None, **overrides: Any) -> CausalLM:
    """GLM-4-9B (June 2024), the same with 40 blocks, more tokens, and a finer norm.

    `overrides` change config fields.
    """
    numbers = {"vocab_size": 151_552, "max_seq_len": 131_072, "n_layers": 40, **_SHARED}
    return chatglm(ChatGLMConfig(**{**numbers, "norm_eps": 1.5625e-7, **overrides}), ops=ops)
