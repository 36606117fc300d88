"""LLaMA 1, 2 and 3 (Touvron et al. 2023a, 2023b; Grattafiori et al. 2024), and SmolLM2's sizes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from minillm.models.causal_lm import CausalLM
from minillm.models.hub_format import ROPE_ALIASES, HubFormat
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PreNormBlock
from minillm.nn.ffn import GatedFeedForward, gated_width
from minillm.nn.linear import check_sizes
from minillm.nn.norms import RMSNorm
from minillm.nn.ops import Ops
from minillm.nn.rotary import Rotary, rotary_frequencies
from minillm.nn.rotary_scaling import llama3_scaling


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers that define a LLaMA.

    Left out, `n_kv_heads` is n_heads, `d_head` d_model / n_heads and `d_ff` 8/3 · d_model rounded
    up to a multiple of 256. With `tied` the token table is the output layer too.
    """

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    d_head: int | None = None
    d_ff: int | None = None
    norm_eps: float = 1e-5
    rope_theta: float | int = 10000.0
    tied: bool = False

    def __post_init__(self) -> None:
        check_sizes(d_model=self.d_model, n_heads=self.n_heads)
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}; give d_head"
            )
        filled = {
            "n_kv_heads": self.n_heads,
            "d_head": self.d_model // self.n_heads,
            "d_ff": gated_width(self.d_model),
        }
        for name, value in filled.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        names = ("vocab_size", "max_seq_len", "n_layers", *filled)
        check_sizes(**{name: getattr(self, name) for name in names})
        if not isinstance(self.norm_eps, int | float) or not 0 <= self.norm_eps < 1:
            raise ValueError(f"norm_eps must be in [0, 1), such as 1e-5, got {self.norm_eps!r}")
        if not isinstance(self.tied, bool):
            raise ValueError(f"tied must be True or False, got {self.tied!r}")


@dataclass(frozen=True)
class Llama3Config(LlamaConfig):
    """A LLaMA whose slow rotations are slowed `rope_factor` times more (Llama 3.1 and 3.2)."""

    rope_factor: float | int = 8.0


def init_normal(model: nn.Module, std: float | int = 0.02) -> None:
    """Weights from N(0, std²), biases 0; norms stay as they are. LLaMA's papers do not say."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)


def plain_rotary(c: LlamaConfig) -> Rotary:
    """RoPE with frequencies rope_theta^(−2i/d_head)."""
    return Rotary(rotary_frequencies(c.d_head, base=c.rope_theta))


def llama3_rotary(c: Llama3Config) -> Rotary:
    """RoPE with Llama 3.1's rule for texts longer than the 8192 tokens it was trained on."""
    return Rotary(llama3_scaling(rotary_frequencies(c.d_head, base=c.rope_theta), c.rope_factor))


def llama_block(
    c: LlamaConfig,
    ops: Ops,
    *,
    norm: Callable[..., nn.Module] = RMSNorm,
    head_norm: Callable[..., nn.Module] | None = None,
    rotary: Callable[[LlamaConfig], nn.Module | None] = plain_rotary,
    attention: Callable[..., Tensor] | None = None,
    gated: Callable[[Tensor, Tensor], Tensor] | None = None,
    qkv_bias: bool = False,
) -> PreNormBlock:
    """x ← x + attention(norm(x)); x ← x + swiglu(norm(x)), queries and keys turned by RoPE.

    What LLaMA's cousins change is an argument: the `norm`, a norm on each head's queries and keys,
    the `rotary` (or none), the `attention` operation, the gate, biases on queries, keys, values.
    """

    def norm_of(d: int, kind: Callable[..., nn.Module] = norm) -> nn.Module:
        return kind(d, eps=c.norm_eps, op=ops.rms_norm)

    return PreNormBlock(
        MultiHeadAttention(
            c.d_model,
            c.n_heads,
            n_kv_heads=c.n_kv_heads,
            d_head=c.d_head,
            bias=qkv_bias,
            output_bias=False,
            query_norm=None if head_norm is None else norm_of(c.d_head, head_norm),
            key_norm=None if head_norm is None else norm_of(c.d_head, head_norm),
            rotary=rotary(c),
            attention=attention or ops.attention,
            linear=ops.linear,
        ),
        GatedFeedForward(c.d_model, c.d_ff, gated=gated or ops.swiglu, linear=ops.linear),
        norm_of(c.d_model),
        norm_of(c.d_model),
    )


_LAYER, _OURS = "model.layers.{i}.", "blocks.{i}."
LLAMA_FORMAT = HubFormat(
    keys={
        "model.embed_tokens.weight": "tokens.weight",
        _LAYER + "input_layernorm.weight": _OURS + "attention_norm.weight",
        _LAYER + "self_attn.q_proj.weight": _OURS + "attention.query.weight",
        _LAYER + "self_attn.k_proj.weight": _OURS + "attention.key.weight",
        _LAYER + "self_attn.v_proj.weight": _OURS + "attention.value.weight",
        _LAYER + "self_attn.o_proj.weight": _OURS + "attention.output.weight",
        _LAYER + "post_attention_layernorm.weight": _OURS + "ffn_norm.weight",
        _LAYER + "mlp.gate_proj.weight": _OURS + "ffn.gate.weight",
        _LAYER + "mlp.up_proj.weight": _OURS + "ffn.up.weight",
        _LAYER + "mlp.down_proj.weight": _OURS + "ffn.down.weight",
        "model.norm.weight": "final_norm.weight",
        "lm_head.weight": "output.weight",
    },
    tied={"lm_head.weight": "model.embed_tokens.weight"},
    obsolete=("rotary_emb.inv_freq",),
    prefix="model.",
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
        "tie_word_embeddings": "tied",
    },
    fixed={
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters.rope_type": "default",
    },
    accepted={"attention_dropout": 0.0, "pretraining_tp": lambda slices: True},
    aliases=ROPE_ALIASES,
    defaults={
        "num_key_value_heads": None,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "rope_parameters.rope_theta": 10000.0,
        "rope_parameters.rope_type": "default",
        "tie_word_embeddings": False,
    },
)
LLAMA3_FORMAT = replace(
    LLAMA_FORMAT,
    config={**LLAMA_FORMAT.config, "rope_parameters.factor": "rope_factor"},
    fixed={
        **LLAMA_FORMAT.fixed,
        "rope_parameters.rope_type": "llama3",
        "rope_parameters.original_max_position_embeddings": 8192,
        "rope_parameters.low_freq_factor": 1.0,
        "rope_parameters.high_freq_factor": 4.0,
    },
)


class Llama(CausalLM):
    """Token vectors, L blocks of RMSNorm, rotary attention and SwiGLU, one more norm, logits.

    `block(config, ops)` makes one block: a cousin hands in `partial(llama_block, …)`. `hub_format`
    says how checkpoints name the parts; `ops` are the kernels used.
    """

    def __init__(
        self,
        config: LlamaConfig,
        *,
        block: Callable[[LlamaConfig, Ops], nn.Module] = llama_block,
        norm: Callable[..., nn.Module] = RMSNorm,
        embedding_scale: float | int = 1.0,
        hub_format: HubFormat = LLAMA_FORMAT,
        ops: Ops | None = None,
    ) -> None:
        if not isinstance(config, LlamaConfig):
            raise ValueError(
                f"config is {config!r:.60}; write Llama(LlamaConfig(...)), or llama2('7b')"
            )
        c, ops = config, ops or Ops()
        super().__init__(
            c,
            (block(c, ops) for _ in range(c.n_layers)),
            final_norm=norm(c.d_model, eps=c.norm_eps, op=ops.rms_norm),
            tied=c.tied,
            embedding_scale=embedding_scale,
            hub_format=hub_format,
            ops=ops,
        )
        init_normal(self)


_7B = {"d_model": 4096, "n_layers": 32, "n_heads": 32}
_13B = {"d_model": 5120, "n_layers": 40, "n_heads": 40}
_8B = {**_7B, "n_kv_heads": 8, "d_ff": 14336}
_70B = {"d_model": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "d_ff": 28672}
_SMALL = {"n_kv_heads": 8, "d_ff": 8192, "tied": True, "rope_factor": 32.0}
LLAMA1_SIZES = {
    "7b": _7B,
    "13b": _13B,
    "33b": {"d_model": 6656, "n_layers": 60, "n_heads": 52},
    "65b": {"d_model": 8192, "n_layers": 80, "n_heads": 64},
}
LLAMA2_SIZES = {"7b": _7B, "13b": _13B, "70b": _70B}
LLAMA3_SIZES = {"8b": _8B, "70b": _70B}
LLAMA3_1_SIZES = {
    "1b": {"d_model": 2048, "n_layers": 16, "n_heads": 32, **_SMALL},
    "3b": {"d_model": 3072, "n_layers": 28, "n_heads": 24, **_SMALL},
    "8b": _8B,
    "70b": _70B,
    "405b": {"d_model": 16384, "n_layers": 126, "n_heads": 128, "n_kv_heads": 8, "d_ff": 53248},
}
SMOLLM2_SIZES = {
    "135m": {"d_model": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "d_ff": 1536},
    "360m": {"d_model": 960, "n_layers": 32, "n_heads": 15, "n_kv_heads": 5, "d_ff": 2560},
    "1.7b": {"d_model": 2048, "n_layers": 24, "n_heads": 32, "d_ff": 8192, "rope_theta": 130000.0},
}


def pick(sizes: dict[str, dict[str, Any]], size: str) -> dict[str, Any]:
    """The numbers of a size; ValueError names the known ones."""
    if not isinstance(size, str) or size not in sizes:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(sizes)}")
    return sizes[size]


def llama(*, ops: Ops | None = None, **numbers: Any) -> Llama:
    """Any LLaMA by its numbers, the fields of `LlamaConfig`."""
    return Llama(LlamaConfig(**numbers), ops=ops)


def llama1(size: str = "7b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """LLaMA (Touvron et al. 2023a): 7b, 13b, 33b, 65b; `overrides` change config fields."""
    numbers = {"vocab_size": 32000, "max_seq_len": 2048, "norm_eps": 1e-6}
    return Llama(LlamaConfig(**{**numbers, **pick(LLAMA1_SIZES, size), **overrides}), ops=ops)


def llama2(size: str = "7b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Llama 2 (Touvron et al. 2023b): twice the context; 70b shares keys and values (GQA)."""
    numbers = {"vocab_size": 32000, "max_seq_len": 4096}
    return Llama(LlamaConfig(**{**numbers, **pick(LLAMA2_SIZES, size), **overrides}), ops=ops)


def llama3(size: str = "8b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Llama 3 (April 2024): GQA in all sizes, 128,256 tokens, a slower RoPE."""
    numbers = {"vocab_size": 128256, "max_seq_len": 8192, "rope_theta": 500000.0}
    return Llama(LlamaConfig(**{**numbers, **pick(LLAMA3_SIZES, size), **overrides}), ops=ops)


def llama3_1(size: str = "8b", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """Llama 3.1 (8b, 70b, 405b) and 3.2 (1b, 3b): Llama 3 with RoPE scaled to 128k tokens."""
    numbers = {"vocab_size": 128256, "max_seq_len": 131072, "rope_theta": 500000.0}
    config = Llama3Config(**{**numbers, **pick(LLAMA3_1_SIZES, size), **overrides})
    block = partial(llama_block, rotary=llama3_rotary)
    return Llama(config, block=block, hub_format=LLAMA3_FORMAT, ops=ops)


def smollm2(size: str = "135m", *, ops: Ops | None = None, **overrides: Any) -> Llama:
    """SmolLM2 (Ben Allal et al. 2025): small LLaMAs with a tied output layer."""
    numbers = {"vocab_size": 49152, "max_seq_len": 8192, "rope_theta": 100000.0, "tied": True}
    return Llama(LlamaConfig(**{**numbers, **pick(SMOLLM2_SIZES, size), **overrides}), ops=ops)
