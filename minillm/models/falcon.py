"""Falcon (Almazrouei et al. 2023) in its three forms: 7B, 40B, and RefinedWeb's with ALiBi."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from minillm.models.bloom import GROUPED, fused_keys, norm_keys
from minillm.models.causal_lm import CausalLM
from minillm.models.hub_format import ROPE_ALIASES, HubFormat, Setting
from minillm.models.llama import init_normal, pick
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import ParallelBlock, PreNormBlock
from minillm.nn.ffn import FeedForward, gelu_exact
from minillm.nn.linear import check_heads, check_sizes
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.relative import alibi_attention
from minillm.nn.rotary import Rotary, rotary_frequencies


@dataclass(frozen=True)
class FalconConfig:
    """The numbers that define a Falcon; n_kv_heads is n_heads, d_ff 4 · d_model when left out."""

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    d_ff: int | None = None
    norm_eps: float = 1e-5
    rope_theta: float | int = 10000.0

    def __post_init__(self) -> None:
        names = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads")
        check_sizes(**{name: getattr(self, name) for name in names})
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if self.d_ff is None:
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        check_sizes(n_kv_heads=self.n_kv_heads, d_ff=self.d_ff)
        check_heads(self.d_model, self.n_heads)

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


_LAYER = "transformer.h.{i}."
_BASE = HubFormat(
    keys={
        "transformer.word_embeddings.weight": "tokens.weight",
        **fused_keys(_LAYER, bias=False),
        **norm_keys({"transformer.ln_f": "final_norm"}),
    },
    layouts=GROUPED,
    tied={"lm_head.weight": "transformer.word_embeddings.weight"},
    prefix="transformer.",
    config={
        "vocab_size": "vocab_size",
        "max_position_embeddings": "max_seq_len",
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "ffn_hidden_size": "d_ff",
        "layer_norm_epsilon": "norm_eps",
    },
    fixed={
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "activation": "gelu",
        "tie_word_embeddings": True,
    },
    accepted={"hidden_dropout": 0.0, "attention_dropout": 0.0},
    aliases={**ROPE_ALIASES, "n_embed": "hidden_size", "n_head_kv": "num_kv_heads"},
    defaults={
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": 1e-5,
        "ffn_hidden_size": None,
        "rope_parameters.rope_theta": 10000.0,
        "rope_parameters.rope_type": "default",
        "alibi": False,
        "new_decoder_architecture": False,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
    },
)
# Its one key-value head is `multi_query`; what num_kv_heads says then is not looked at.
_ONE = Setting("n_kv_heads", read=lambda value: 1, write=lambda value: 1)
_ROTARY = {"rope_parameters.rope_theta": "rope_theta"}
FALCON_7B_FORMAT = replace(
    _BASE,
    keys={**_BASE.keys, **norm_keys({_LAYER + "input_layernorm": "blocks.{i}.attention_norm"})},
    config={**_BASE.config, **_ROTARY, "num_kv_heads": _ONE},
    defaults={**_BASE.defaults, "num_kv_heads": 1},
    fixed={
        **_BASE.fixed,
        "alibi": False,
        "new_decoder_architecture": False,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "rope_parameters.rope_type": "default",
    },
)
FALCON_40B_FORMAT = replace(
    _BASE,
    keys={
        **_BASE.keys,
        **norm_keys(
            {
                _LAYER + "ln_attn": "blocks.{i}.attention_norm",
                _LAYER + "ln_mlp": "blocks.{i}.ffn_norm",
            }
        ),
    },
    config={**_BASE.config, **_ROTARY, "num_kv_heads": "n_kv_heads"},
    accepted={**_BASE.accepted, "num_ln_in_parallel_attn": (None, 2)},
    fixed={
        **_BASE.fixed,
        "alibi": False,
        "new_decoder_architecture": True,
        "bias": False,
        "rope_parameters.rope_type": "default",
    },
)
FALCON_RW_FORMAT = replace(
    _BASE,
    keys={
        **_BASE.keys,
        **fused_keys(_LAYER, bias=True),
        **norm_keys(
            {
                _LAYER + "input_layernorm": "blocks.{i}.attention_norm",
                _LAYER + "post_attention_layernorm": "blocks.{i}.ffn_norm",
            }
        ),
    },
    fixed={
        **_BASE.fixed,
        "alibi": True,
        "new_decoder_architecture": False,
        "multi_query": False,
        "parallel_attn": False,
        "bias": True,
    },
)
FALCON_40B_SIZES = {
    "40b": {"d_model": 8192, "n_layers": 60, "n_heads": 128},
    "180b": {"d_model": 14848, "n_layers": 80, "n_heads": 232},
}
FALCON_RW_SIZES = {
    "1b": {"d_model": 2048, "n_layers": 24, "n_heads": 32},
    "7b": {"d_model": 4096, "n_layers": 36, "n_heads": 64},
}


def _falcon(
    c: FalconConfig,
    ops: Ops,
    block: Callable[[nn.Module, nn.Module, Callable[[], nn.Module]], nn.Module],
    hub_format: HubFormat,
    *,
    bias: bool = False,
    **attention: Any,
) -> CausalLM:
    """What the three forms share: the parts, to be joined by block(attention, ffn, norm)."""

    def norm() -> nn.Module:
        return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

    def attend() -> nn.Module:
        given = {"attention": ops.attention, "n_kv_heads": c.n_kv_heads, **attention}
        return MultiHeadAttention(c.d_model, c.n_heads, bias=bias, linear=ops.linear, **given)

    def ffn() -> nn.Module:
        width = (c.d_model, c.d_ff)
        return FeedForward(*width, activation=gelu_exact, bias=bias, linear=ops.linear)

    blocks = (block(attend(), ffn(), norm) for _ in range(c.n_layers))
    model = CausalLM(c, blocks, final_norm=norm(), hub_format=hub_format, ops=ops)
    init_normal(model)
    return model


def falcon_7b(*, ops: Ops | None = None, **overrides: Any) -> CausalLM:
    """Falcon-7B: attention and feed-forward side by side behind one norm; one key-value head."""
    numbers = {"vocab_size": 65024, "max_seq_len": 2048, "d_model": 4544, "n_layers": 32}
    c = FalconConfig(**{**numbers, "n_heads": 71, "n_kv_heads": 1, **overrides})
    return _falcon(
        c,
        ops or Ops(),
        lambda attention, ffn, norm: ParallelBlock(attention, ffn, norm()),
        FALCON_7B_FORMAT,
        rotary=Rotary(rotary_frequencies(c.d_head, base=c.rope_theta)),
    )


def falcon_40b(size: str = "40b", *, ops: Ops | None = None, **overrides: Any) -> CausalLM:
    """Falcon-40B, 180B: a norm for each of the two parts, and eight key-value heads."""
    numbers = {"vocab_size": 65024, "max_seq_len": 2048, "n_kv_heads": 8}
    c = FalconConfig(**{**numbers, **pick(FALCON_40B_SIZES, size), **overrides})
    return _falcon(
        c,
        ops or Ops(),
        lambda attention, ffn, norm: ParallelBlock(attention, ffn, norm(), norm()),
        FALCON_40B_FORMAT,
        rotary=Rotary(rotary_frequencies(c.d_head, base=c.rope_theta)),
    )


def falcon_rw(size: str = "1b", *, ops: Ops | None = None, **overrides: Any) -> CausalLM:
    """Falcon-RW (Penedo et al. 2023): one part after the other, biases, ALiBi divided by √p."""
    numbers = {"vocab_size": 50304, "max_seq_len": 2048, **pick(FALCON_RW_SIZES, size)}
    numbers = {**numbers, **overrides}
    c, ops = FalconConfig(**{**numbers, "n_kv_heads": numbers["n_heads"]}), ops or Ops()
    biased = alibi_attention(c.n_heads, attention=ops.attention, strength=c.d_head**-0.5)
    return _falcon(
        c,
        ops,
        lambda attention, ffn, norm: PreNormBlock(attention, ffn, norm(), norm()),
        FALCON_RW_FORMAT,
        bias=True,
        attention=biased,
    )
