"""GPT-1 (Radford et al. 2018) and GPT-2 (Radford et al. 2019): decoder-only Transformers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.hub_format import HubFormat
from minillm.nn.attention import Cache, MultiHeadAttention, padding_mask
from minillm.nn.blocks import PostNormBlock, PreNormBlock
from minillm.nn.ffn import FeedForward
from minillm.nn.linear import check_dropout, check_sizes
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import LearnedPositions, look_up


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
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}; "
                f"try d_model={self.d_model // self.n_heads * self.n_heads or self.n_heads}"
            )

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


class GPT(nn.Module):
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
        hub_format: HubFormat = GPT2_FORMAT,
        ops: Ops | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(config, GPTConfig):
            raise ValueError(f"config is {config!r:.60}; write GPT(GPTConfig(...)), or gpt2()")
        c, ops = config, ops or Ops()
        self.config, self.hub_format = config, hub_format
        self.tokens = nn.Embedding(c.vocab_size, c.d_model)
        self.positions = LearnedPositions(c.max_seq_len, c.d_model)
        self.dropout = nn.Dropout(c.dropout) if c.dropout > 0 else nn.Identity()
        self.blocks = nn.ModuleList(
            block(
                MultiHeadAttention(
                    c.d_model,
                    c.n_heads,
                    dropout=c.dropout,
                    attention=ops.attention,
                    linear=ops.linear,
                ),
                FeedForward(c.d_model, c.d_ff, activation=ops.gelu_tanh, linear=ops.linear),
                LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm),
                LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm),
                dropout=c.dropout,
            )
            for _ in range(c.n_layers)
        )
        norm = LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)
        self.final_norm = norm if final_norm else nn.Identity()
        self.linear = ops.linear
        init(self)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        positions: Int[Tensor, "b t"] | None = None,
        attention_mask: Bool[Tensor, "b s"] | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the next token after each of `tokens` (only after the last with `last_only`).

        `attention_mask` is False at padding and covers the cached positions too. Padding on the
        left needs `positions` as well (by default cache.length + 0, 1, 2, …). A pass that fails
        or is interrupted leaves the cache as it was.
        """
        start = 0 if cache is None else cache.length
        self._check(tokens, positions, attention_mask, start)
        if cache is not None:
            self._check_cache(cache)
        if positions is None:
            positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
        mask = None if attention_mask is None else padding_mask(attention_mask)
        x = look_up(self.tokens.weight, tokens, "token ids") + self.positions(positions)
        x = self.dropout(x)
        try:
            for i, block in enumerate(self.blocks):
                x = block(x, mask=mask, causal=True, cache=None if cache is None else cache[i])
            x = self.final_norm(x[:, -1:] if last_only else x)
            return self.linear(x, self.tokens.weight)
        except BaseException:  # Ctrl-C too: some layers hold the new keys, others do not
            if hasattr(cache, "rollback"):
                cache.rollback(start)
            raise

    def _check_cache(self, cache: Cache) -> None:
        n_layers = getattr(cache, "n_layers", self.config.n_layers)
        if n_layers != self.config.n_layers:
            raise ValueError(
                f"the cache has {n_layers} layers and the model {self.config.n_layers}: build it "
                "by ContiguousCache.for_model(model)"
            )

    def _check(
        self, tokens: Tensor, positions: Tensor | None, attention_mask: Tensor | None, start: int
    ) -> None:
        if not isinstance(tokens, Tensor):
            raise ValueError(f"tokens is {tokens!r:.60}; write `torch.tensor(tokens)`")
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"tokens must have shape (batch ≥ 1, length ≥ 1), got {tuple(tokens.shape)}; "
                "write `tokens[None]` for a single sequence"
            )
        end = start + tokens.shape[1]
        if positions is None and end > self.config.max_seq_len:
            raise ValueError(
                f"{end} positions exceed max_seq_len {self.config.max_seq_len}; "
                "cut the input, or build the model with a longer max_seq_len"
            )
        for name, given in (("positions", positions), ("attention_mask", attention_mask)):
            if given is not None and not isinstance(given, Tensor):
                raise ValueError(f"{name} is {given!r:.60}; write `torch.tensor({name})`")
        fitting = ((1, tokens.shape[1]), tokens.shape)
        if positions is not None and positions.shape not in fitting:
            raise ValueError(
                f"positions {tuple(positions.shape)} must match tokens {tuple(tokens.shape)}"
            )
        if attention_mask is not None and attention_mask.shape != (tokens.shape[0], end):
            raise ValueError(
                f"attention_mask must be {(tokens.shape[0], end)} (cached and new positions), "
                f"got {tuple(attention_mask.shape)}"
            )


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
