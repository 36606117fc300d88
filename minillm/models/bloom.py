"""BLOOM (Scao et al. 2022): GPT with ALiBi, and a LayerNorm behind the token vectors."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minillm.models.causal_lm import CausalConfig, CausalLM
from minillm.models.hub_format import HubFormat
from minillm.models.llama import init_normal, pick
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PreNormBlock
from minillm.nn.ffn import FeedForward
from minillm.nn.linear import check_heads, check_sizes
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.relative import alibi_attention


class GroupedHeads:
    """The layout of a fused q-k-v tensor: for each key head, its query heads, itself, its value.

    Rows are (g, h/g + 2, p), with h query and g key-value heads of size p. With g = h, as in BLOOM,
    every head's q, k and v follow one another; with g = 1 queries, keys and values lie side by
    side; Falcon 40B is between. Weights and biases are cut alike.
    """

    def split(self, tensor: Tensor, config: CausalConfig) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows of all queries, of all keys, of all values."""
        g, share = config.n_kv_heads, config.n_heads // config.n_kv_heads
        rows = (config.n_heads + 2 * g) * config.d_head
        if tensor.shape[0] != rows:
            raise ValueError(
                f"{tensor.shape[0]} rows, but {config.n_heads} + 2 · {g} heads of {config.d_head} "
                f"have {rows}"
            )
        groups = tensor.view(g, share + 2, config.d_head, *tensor.shape[1:])
        return tuple(
            part.flatten(0, 2) for part in groups.split([share, 1, 1], dim=1)
        )  # heads in order

    def join(self, parts: tuple[Tensor, ...], config: CausalConfig) -> Tensor:
        """Return the fused tensor."""
        g, tail = config.n_kv_heads, parts[0].shape[1:]
        groups = [part.view(g, -1, config.d_head, *tail) for part in parts]
        return torch.cat(groups, dim=1).flatten(0, 2)


@dataclass(frozen=True)
class BloomConfig:
    """The numbers that define a BLOOM; `max_seq_len` is no part of its files, ALiBi has no end."""

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        names = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads")
        check_sizes(**{name: getattr(self, name) for name in names})
        check_heads(self.d_model, self.n_heads)

    @property
    def n_kv_heads(self) -> int:
        """Every query head has its own keys and values."""
        return self.n_heads

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads

    @property
    def d_ff(self) -> int:
        """Inner width of the feed-forward layer."""
        return 4 * self.d_model


def fused_keys(layer: str, *, bias: bool) -> dict[str, str | tuple[str, ...]]:
    """The names that BLOOM and Falcon share within a layer; q, k and v are one tensor."""
    keys: dict[str, str | tuple[str, ...]] = {}
    for kind in ("weight", "bias") if bias else ("weight",):
        fused = tuple(f"blocks.{{i}}.attention.{n}.{kind}" for n in ("query", "key", "value"))
        keys[f"{layer}self_attention.query_key_value.{kind}"] = fused
        keys[f"{layer}self_attention.dense.{kind}"] = f"blocks.{{i}}.attention.output.{kind}"
        keys[f"{layer}mlp.dense_h_to_4h.{kind}"] = f"blocks.{{i}}.ffn.up.{kind}"
        keys[f"{layer}mlp.dense_4h_to_h.{kind}"] = f"blocks.{{i}}.ffn.down.{kind}"
    return keys


def norm_keys(names: dict[str, str]) -> dict[str, str]:
    """Scale and shift of each LayerNorm."""
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in names.items() for kind in ("weight", "bias")}


_LAYER = "transformer.h.{i}."
GROUPED = {"query_key_value.weight": GroupedHeads(), "query_key_value.bias": GroupedHeads()}
BLOOM_FORMAT = HubFormat(
    keys={
        "transformer.word_embeddings.weight": "tokens.weight",
        **fused_keys(_LAYER, bias=True),
        **norm_keys(
            {
                "transformer.word_embeddings_layernorm": "embedding_norm",
                _LAYER + "input_layernorm": "blocks.{i}.attention_norm",
                _LAYER + "post_attention_layernorm": "blocks.{i}.ffn_norm",
                "transformer.ln_f": "final_norm",
            }
        ),
    },
    layouts=GROUPED,
    tied={"lm_head.weight": "transformer.word_embeddings.weight"},
    prefix="transformer.",
    config={
        "vocab_size": "vocab_size",
        "hidden_size": "d_model",
        "n_layer": "n_layers",
        "n_head": "n_heads",
        "layer_norm_epsilon": "norm_eps",
        "seq_length": "max_seq_len",  # in the largest model's file only
    },
    fixed={
        "model_type": "bloom",
        "architectures": ["BloomForCausalLM"],
        "apply_residual_connection_post_layernorm": False,
        "tie_word_embeddings": True,
    },
    accepted={
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "pretraining_tp": lambda slices: True,
        "slow_but_exact": False,
    },
    aliases={
        "n_embed": "hidden_size",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
    },
    defaults={"seq_length": 2048},
)
BLOOM_SIZES = {
    "560m": {"d_model": 1024, "n_layers": 24, "n_heads": 16},
    "1b1": {"d_model": 1536, "n_layers": 24, "n_heads": 16},
    "1b7": {"d_model": 2048, "n_layers": 24, "n_heads": 16},
    "3b": {"d_model": 2560, "n_layers": 30, "n_heads": 32},
    "7b1": {"d_model": 4096, "n_layers": 30, "n_heads": 32},
    "176b": {"d_model": 14336, "n_layers": 70, "n_heads": 112},
}


def bloom(size: str = "560m", *, ops: Ops | None = None, **overrides: Any) -> CausalLM:
    """BLOOM (Scao et al. 2022): pre-norm, GELU, ALiBi; `overrides` change config fields."""
    numbers = {"vocab_size": 250880, "max_seq_len": 2048, **pick(BLOOM_SIZES, size)}
    c, ops = BloomConfig(**{**numbers, **overrides}), ops or Ops()

    def norm() -> nn.Module:
        return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

    biased = alibi_attention(c.n_heads, attention=ops.attention)
    blocks = (
        PreNormBlock(
            MultiHeadAttention(c.d_model, c.n_heads, attention=biased, linear=ops.linear),
            FeedForward(c.d_model, c.d_ff, activation=ops.gelu_tanh, linear=ops.linear),
            norm(),
            norm(),
        )
        for _ in range(c.n_layers)
    )
    model = CausalLM(
        c, blocks, final_norm=norm(), embedding_norm=norm(), hub_format=BLOOM_FORMAT, ops=ops
    )
    init_normal(model)
    return model
