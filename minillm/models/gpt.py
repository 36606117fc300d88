"""GPT-1 (Radford et al. 2018) and GPT-2 (Radford et al. 2019): decoder-only Transformers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from minillm.models.causal_lm import CausalLM
from minillm.models.hub_format import HubFormat
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PostNormBlock, PreNormBlock
from minillm.nn.ffn import FeedForward
from minillm.nn.linear import check_dropout, check_heads, check_sizes
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import LearnedPositions


@dataclass(frozen=True)
class GPTConfig:
    """The numbers that define a GPT; `d_ff` is 4 · d_model when left out."""

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int | None = None
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.d_ff is None and isinstance(self.d_model, int):
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        names = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "d_ff")
        check_sizes(**{name: getattr(self, name) for name in names})
        check_dropout(self.dropout)
        if not isinstance(self.norm_eps, int | float) or not 0 <= self.norm_eps < 1:
            raise ValueError(f"norm_eps must be in [0, 1), such as 1e-5, got {self.norm_eps!r}")
        check_heads(self.d_model, self.n_heads)

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads: in a GPT every query head has its own."""
        return self.n_heads

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


def init_gpt1(model: nn.Module) -> None:
    """Weights from N(0, 0.02²), biases 0 (Radford et al. 2018, 4.1)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding | LearnedPositions):
            nn.init.normal_(module.weight, std=0.02)


def init_gpt2(model: nn.Module) -> None:
    """As GPT-1, but the 2L layers that write to the residual stream get 0.02/√(2L) (GPT-2, 2.3).

    Every block adds two terms to the stream; scaled so, their sum keeps its variance at any depth.
    """
    init_gpt1(model)
    std = 0.02 / (2 * len(model.blocks)) ** 0.5
    for block in model.blocks:
        nn.init.normal_(block.attention.output.weight, std=std)
        nn.init.normal_(block.ffn.down.weight, std=std)


_BLOCK_KEYS = {
    "transformer.h.{i}.ln_1.weight": "blocks.{i}.attention_norm.weight",
    "transformer.h.{i}.ln_1.bias": "blocks.{i}.attention_norm.bias",
    "transformer.h.{i}.attn.c_attn.weight": (
        "blocks.{i}.attention.query.weight",
        "blocks.{i}.attention.key.weight",
        "blocks.{i}.attention.value.weight",
    ),
    "transformer.h.{i}.attn.c_attn.bias": (
        "blocks.{i}.attention.query.bias",
        "blocks.{i}.attention.key.bias",
        "blocks.{i}.attention.value.bias",
    ),
    "transformer.h.{i}.attn.c_proj.weight": "blocks.{i}.attention.output.weight",
    "transformer.h.{i}.attn.c_proj.bias": "blocks.{i}.attention.output.bias",
    "transformer.h.{i}.ln_2.weight": "blocks.{i}.ffn_norm.weight",
    "transformer.h.{i}.ln_2.bias": "blocks.{i}.ffn_norm.bias",
    "transformer.h.{i}.mlp.c_fc.weight": "blocks.{i}.ffn.up.weight",
    "transformer.h.{i}.mlp.c_fc.bias": "blocks.{i}.ffn.up.bias",
    "transformer.h.{i}.mlp.c_proj.weight": "blocks.{i}.ffn.down.weight",
    "transformer.h.{i}.mlp.c_proj.bias": "blocks.{i}.ffn.down.bias",
}
_CONFIG_KEYS = {
    "vocab_size": "vocab_size",
    "n_positions": "max_seq_len",
    "n_embd": "d_model",
    "n_layer": "n_layers",
    "n_head": "n_heads",
    "layer_norm_epsilon": "norm_eps",
    "resid_pdrop": "dropout",
    "embd_pdrop": "dropout",
    "attn_pdrop": "dropout",
}
_SHARED = {
    "transposed": ("c_attn.weight", "c_proj.weight", "c_fc.weight"),
    "obsolete": (".attn.bias", ".attn.masked_bias", "position_ids"),
    "prefix": "transformer.",
}

GPT1_FORMAT = HubFormat(
    keys={
        "transformer.tokens_embed.weight": "tokens.weight",
        "transformer.positions_embed.weight": "positions.weight",
        **_BLOCK_KEYS,
    },
    tied={"lm_head.weight": "transformer.tokens_embed.weight"},
    config=_CONFIG_KEYS,
    fixed={
        "model_type": "openai-gpt",
        "architectures": ["OpenAIGPTLMHeadModel"],
        "afn": "gelu",
        "tie_word_embeddings": True,
    },
    **_SHARED,
)
GPT2_FORMAT = HubFormat(
    keys={
        "transformer.wte.weight": "tokens.weight",
        "transformer.wpe.weight": "positions.weight",
        **_BLOCK_KEYS,
        "transformer.ln_f.weight": "final_norm.weight",
        "transformer.ln_f.bias": "final_norm.bias",
    },
    tied={"lm_head.weight": "transformer.wte.weight"},
    config={**_CONFIG_KEYS, "n_inner": "d_ff"},
    fixed={
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "add_cross_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    },
    **_SHARED,
)


class GPT(CausalLM):
    """Token and position vectors, L causal blocks, and the token table again as output layer.

    `block`, `final_norm` and `init` tell GPT-1 from GPT-2; `hub_format` says how checkpoints name
    its parts; `ops` are the kernels used, `Ops()` when left out.
    """

    def __init__(
        self,
        config: GPTConfig,
        *,
        block: Callable[..., nn.Module] = PreNormBlock,
        final_norm: bool = True,
        init: Callable[[nn.Module], None] = init_gpt2,
        hub_format: HubFormat | None = GPT2_FORMAT,
        ops: Ops | None = None,
    ) -> None:
        if not isinstance(config, GPTConfig):
            raise ValueError(f"config is {config!r:.60}; write GPT(GPTConfig(...)), or gpt2()")
        c, ops = config, ops or Ops()

        def norm() -> nn.Module:
            return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

        def attention() -> nn.Module:
            return MultiHeadAttention(
                c.d_model, c.n_heads, dropout=c.dropout, attention=ops.attention, linear=ops.linear
            )

        def ffn() -> nn.Module:
            return FeedForward(c.d_model, c.d_ff, activation=ops.gelu_tanh, linear=ops.linear)

        super().__init__(
            c,
            (
                block(attention(), ffn(), norm(), norm(), dropout=c.dropout)
                for _ in range(c.n_layers)
            ),
            final_norm=norm() if final_norm else None,
            positions=LearnedPositions(c.max_seq_len, c.d_model),
            dropout=c.dropout,
            hub_format=hub_format,
            ops=ops,
        )
        init(self)


GPT2_SIZES = {
    "small": {"d_model": 768, "n_layers": 12, "n_heads": 12},
    "medium": {"d_model": 1024, "n_layers": 24, "n_heads": 16},
    "large": {"d_model": 1280, "n_layers": 36, "n_heads": 20},
    "xl": {"d_model": 1600, "n_layers": 48, "n_heads": 25},
}


def gpt1(*, ops: Ops | None = None, **overrides: Any) -> GPT:
    """GPT-1 (Radford et al. 2018): post-norm, no final norm; `overrides` change config fields."""
    config = GPTConfig(vocab_size=40478, max_seq_len=512, d_model=768, n_layers=12, n_heads=12)
    config = replace(config, **{"d_ff": None, **overrides})
    return GPT(
        config,
        block=PostNormBlock,
        final_norm=False,
        init=init_gpt1,
        hub_format=GPT1_FORMAT,
        ops=ops,
    )


def gpt2(size: str = "small", *, ops: Ops | None = None, **overrides: Any) -> GPT:
    """GPT-2 (Radford et al. 2019): pre-norm, a final norm; `overrides` change config fields."""
    if not isinstance(size, str) or size not in GPT2_SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(GPT2_SIZES)}")
    numbers = {"vocab_size": 50257, "max_seq_len": 1024, **GPT2_SIZES[size], **overrides}
    return GPT(GPTConfig(**numbers), ops=ops)


def gpt_tiny(vocab_size: int, *, ops: Ops | None = None, **overrides: Any) -> GPT:
    """A GPT-2 of 0.8M parameters besides its token table, for tests and demonstrations."""
    numbers = {"max_seq_len": 128, "d_model": 128, "n_layers": 4, "n_heads": 4, **overrides}
    return GPT(GPTConfig(vocab_size=vocab_size, **numbers), ops=ops)


def gpt_mini(vocab_size: int, *, ops: Ops | None = None, **overrides: Any) -> GPT:
    """A GPT-2 of 10.7M parameters besides its token table, to train on a laptop."""
    numbers = {"max_seq_len": 256, "d_model": 384, "n_layers": 6, "n_heads": 6, **overrides}
    return GPT(GPTConfig(vocab_size=vocab_size, **numbers), ops=ops)
