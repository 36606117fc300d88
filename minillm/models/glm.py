"""GLM (Du et al. 2022) and GLM-130B (Zeng et al. 2023): one Transformer that reads, then fills in.

A sequence is part A, a text with holes, and part B, the spans that fill them, each after a start
token. Part A is read in both directions, part B written from left to right. The two models share
`GLM` and differ in the parts that are handed to it. ChatGLM2, a causal decoder, is in
`models.chatglm`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.hub_format import HubFormat
from minillm.nn.attention import Cache, MultiHeadAttention, padding_mask
from minillm.nn.blocks import DeepNormBlock, PreNormBlock, init_deepnorm
from minillm.nn.ffn import FeedForward, GatedFeedForward, geglu
from minillm.nn.linear import check_dropout, check_heads, check_sizes
from minillm.nn.losses import cross_entropy
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import BlockPositions, LearnedPositions, look_up
from minillm.nn.prefix import prefix_mask
from minillm.nn.rotary import Rotary, rotary_frequencies


@dataclass(frozen=True)
class GLMConfig:
    """The numbers that define a GLM; `max_seq_len` counts part A and part B together."""

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        names = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "d_ff")
        check_sizes(**{name: getattr(self, name) for name in names})
        check_dropout(self.dropout)
        check_heads(self.d_model, self.n_heads)

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads: every query head has its own."""
        return self.n_heads

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


class GLM(nn.Module):
    """p(s | x) = Πⱼ p(sⱼ | x, s₁ … sⱼ₋₁): spans s of part B, given the holey text x, part A.

    `blocks` are called as block(x, mask=, causal=, positions=, cache=). With `positions`, such as
    `BlockPositions`, vectors are added to the tokens' and the blocks get no positions; without,
    the blocks turn queries and keys themselves. `ops` are the kernels used, `Ops()` by default.
    """

    def __init__(
        self,
        config: GLMConfig,
        blocks: Iterable[nn.Module],
        *,
        positions: nn.Module | None = None,
        embedding_norm: nn.Module | None = None,
        final_norm: nn.Module | None = None,
        hub_format: HubFormat | None = None,
        ops: Ops | None = None,
    ) -> None:
        super().__init__()
        self.config, self.hub_format = config, hub_format
        self.linear = (ops or Ops()).linear
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = positions
        self.embedding_norm = nn.Identity() if embedding_norm is None else embedding_norm
        self.dropout = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = nn.Identity() if final_norm is None else final_norm

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        context: Int[Tensor, " b"] | None = None,
        positions: Int[Tensor, "#b *two t"] | None = None,
        attention_mask: Bool[Tensor, "b s"] | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the next token after each of `tokens` (only after the last with `last_only`).

        `context` is how many tokens of each row are part A; left out, nothing is: all is causal.
        Part A must be read in one pass; with a `cache`, later passes are part B alone. `positions`
        are (b, 2, t) from `block_positions` where they are added to the tokens, (b, t) where they
        are rotations. `attention_mask` is False at padding, and covers cached places too.
        """
        x = self.hidden(
            tokens, context=context, positions=positions, attention_mask=attention_mask, cache=cache
        )
        return self.logits(x[:, -1:] if last_only else x)

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        context: Int[Tensor, " b"] | None = None,
        positions: Int[Tensor, "#b *two t"] | None = None,
        attention_mask: Bool[Tensor, "b s"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The stream after the last norm: what `logits` reads."""
        start = 0 if cache is None else cache.length
        self._check(tokens, context, start)
        if positions is None:
            positions = self._plain_positions(start, tokens)
        mask = None if context is None else prefix_mask(context, tokens.shape[1])
        if attention_mask is not None:
            real = padding_mask(attention_mask)
            mask = real if mask is None else mask & real
        turned = positions if self.positions is None else None
        try:
            x = self._embed(tokens, positions)
            for i, block in enumerate(self.blocks):
                layer = None if cache is None else cache[i]
                x = block(x, mask=mask, causal=context is None, positions=turned, cache=layer)
        except BaseException:  # Ctrl-C too: some layers hold the new keys, others do not
            if hasattr(cache, "rollback"):
                cache.rollback(start)
            raise
        return self.final_norm(x)

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Scores of all tokens: the table of token vectors is the output layer too."""
        return self.linear(hidden, self.tokens.weight)

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = look_up(self.tokens.weight, tokens, "token ids")
        x = x if self.positions is None else x + self.positions(positions)
        return self.dropout(self.embedding_norm(x))

    def _plain_positions(self, start: int, tokens: Tensor) -> Tensor:
        """0, 1, 2, …, and 0 within the block: a text without blanks."""
        place = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return place[None] if self.positions is None else torch.stack([place, place * 0])[None]

    def _check(self, tokens: Tensor, context: Tensor | None, start: int) -> None:
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"tokens must have shape (batch ≥ 1, length ≥ 1), got {tuple(tokens.shape)}; "
                "write `tokens[None]` for a single sequence"
            )
        if (end := start + tokens.shape[1]) > self.config.max_seq_len:
            raise ValueError(
                f"{end} tokens of parts A and B exceed max_seq_len {self.config.max_seq_len}; "
                "shorten the text, or build the model with a longer max_seq_len"
            )
        if context is not None and start:
            raise ValueError(
                f"the cache holds {start} tokens already, and part A is read in one pass, before "
                "all else: give context with the first pass only"
            )


def blank_loss(
    model: GLM,
    batch: dict[str, Tensor],
    cross_entropy: Callable[..., Tensor] = cross_entropy,
) -> tuple[Tensor, int]:
    """Σ −log p of the tokens of part B, and how many there are: a `loss_fn` of `training.train`.

    `batch` is what `data.blank_infilling` makes. Logits are computed where there is a target only.
    """
    counts = batch["targets"] != -100
    hidden = model.hidden(batch["tokens"], context=batch["context"], positions=batch["positions"])
    logits = model.logits(hidden[counts])
    return cross_entropy(logits, batch["targets"][counts], reduction="sum"), int(counts.sum())


def init_glm(model: GLM) -> None:
    """N(0, 0.02²), but 0.02/√(2L) for what writes to the stream, as GPT-2; biases 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding | LearnedPositions):
            nn.init.normal_(module.weight, std=0.02)
    for block in model.blocks:
        for part in (block.attention.output, block.ffn.down):
            nn.init.normal_(part.weight, std=0.02 / (2 * len(model.blocks)) ** 0.5)


_LAYER = "transformer.layers.{i}."
_PAIRS = {
    "input_layernorm": "attention_norm",
    "attention.dense": "attention.output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn.up",
    "mlp.dense_4h_to_h": "ffn.down",
}
_QKV = ("query", "key", "value")
GLM_FORMAT = HubFormat(
    keys={
        "transformer.word_embeddings.weight": "tokens.weight",
        "transformer.position_embeddings.weight": "positions.text.weight",
        "mixins.block_position_embedding.block_position_embeddings.weight": (
            "positions.block.weight"
        ),
        **{
            f"{_LAYER}{theirs}.{kind}": f"blocks.{{i}}.{ours}.{kind}"
            for theirs, ours in _PAIRS.items()
            for kind in ("weight", "bias")
        },
        **{
            f"{_LAYER}attention.query_key_value.{kind}": tuple(
                f"blocks.{{i}}.attention.{part}.{kind}" for part in _QKV
            )
            for kind in ("weight", "bias")
        },
        "transformer.final_layernorm.weight": "final_norm.weight",
        "transformer.final_layernorm.bias": "final_norm.bias",
    },
    config={
        "vocab_size": "vocab_size",
        "max_sequence_length": "max_seq_len",
        "hidden_size": "d_model",
        "num_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "inner_hidden_size": "d_ff",
        "layernorm_epsilon": "norm_eps",
    },
    fixed={"model_type": "glm-sat", "architectures": ["GLMModel"], "layernorm_order": "pre"},
)
"""Names in the authors' own checkpoints, those of the package SwissArmyTransformer."""

SIZES = {
    "base": {
        "vocab_size": 30592,
        "max_seq_len": 512,
        "d_model": 768,
        "n_layers": 12,
        "n_heads": 12,
    },
    "large": {
        "vocab_size": 30592,
        "max_seq_len": 512,
        "d_model": 1024,
        "n_layers": 24,
        "n_heads": 16,
    },
    "515m": {
        "vocab_size": 30592,
        "max_seq_len": 512,
        "d_model": 1152,
        "n_layers": 30,
        "n_heads": 18,
    },
    "10b": {
        "vocab_size": 50304,
        "max_seq_len": 1024,
        "d_model": 4096,
        "n_layers": 48,
        "n_heads": 64,
    },
}


def glm(size: str = "base", *, ops: Ops | None = None, **overrides: Any) -> GLM:
    """GLM (Du et al. 2022): pre-norm, GELU, two learned positions; `overrides` change the config.

    Left out, `d_ff` is 4 · d_model.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(SIZES)}")
    numbers = {**SIZES[size], **overrides}
    c, ops = GLMConfig(**{"d_ff": 4 * numbers["d_model"], **numbers}), ops or Ops()

    def norm() -> nn.Module:
        return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

    def block() -> nn.Module:
        attention = MultiHeadAttention(
            c.d_model, c.n_heads, dropout=c.dropout, attention=ops.attention, linear=ops.linear
        )
        ffn = FeedForward(c.d_model, c.d_ff, activation=ops.gelu_tanh, linear=ops.linear)
        return PreNormBlock(attention, ffn, norm(), norm(), dropout=c.dropout)

    model = GLM(
        c,
        (block() for _ in range(c.n_layers)),
        positions=BlockPositions(c.max_seq_len, c.max_seq_len - 1, c.d_model),
        final_norm=norm(),
        hub_format=GLM_FORMAT,
        ops=ops,
    )
    init_glm(model)
    return model


def glm_130b(*, ops: Ops | None = None, **overrides: Any) -> GLM:
    """GLM-130B (Zeng et al. 2023): DeepNorm with α = (2N)^½, GeGLU, rotary positions.

    A norm right behind the embeddings, and the last norm of the last block is the model's last.
    """
    numbers = {"vocab_size": 150_528, "max_seq_len": 2048, "d_model": 12_288, "n_layers": 70}
    numbers |= {"n_heads": 96, "d_ff": 32_768}
    c, ops = GLMConfig(**{**numbers, **overrides}), ops or Ops()

    def norm() -> nn.Module:
        return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

    def block() -> nn.Module:
        attention = MultiHeadAttention(
            c.d_model,
            c.n_heads,
            dropout=c.dropout,
            rotary=Rotary(rotary_frequencies(c.d_head)),
            attention=ops.attention,
            linear=ops.linear,
        )
        ffn = GatedFeedForward(c.d_model, c.d_ff, gated=geglu, bias=True, linear=ops.linear)
        alpha = (2 * c.n_layers) ** 0.5
        return DeepNormBlock(attention, ffn, norm(), norm(), alpha=alpha, dropout=c.dropout)

    model = GLM(c, (block() for _ in range(c.n_layers)), embedding_norm=norm(), ops=ops)
    nn.init.normal_(model.tokens.weight, std=0.02)
    init_deepnorm(model.blocks, (2 * c.n_layers) ** -0.5)
    return model
