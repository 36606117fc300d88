"""The Transformer of 2017 (Vaswani et al.): an encoder reads, a decoder writes and looks at it.

Post-norm blocks, sinusoids, one table of token vectors that serves the encoder, the decoder and,
transposed, the output layer. Pre-norm, or other parts, by handing them in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.hub_format import HubFormat
from minillm.nn.attention import Cache, MultiHeadAttention, padding_mask
from minillm.nn.blocks import PostNormBlock, PreNormBlock
from minillm.nn.decoder import PostNormDecoderBlock, PreNormDecoderBlock
from minillm.nn.ffn import FeedForward, relu
from minillm.nn.linear import check_dropout, check_sizes
from minillm.nn.losses import cross_entropy
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import SinusoidalPositions, look_up

IGNORED = -100


def shift_right(targets: Int[Tensor, "b t"], start_id: int, pad_id: int = 0) -> Int[Tensor, "b t"]:
    """What the decoder reads while it learns to write `targets`: start, then all but the last.

    Position i reads targets 0 … i − 1 and predicts target i (teacher forcing). Targets that the
    loss ignores (−100) become `pad_id`.
    """
    shifted = targets.roll(1, dims=1)
    shifted[:, 0] = start_id
    return shifted.masked_fill(shifted == IGNORED, pad_id)


def translation_loss(
    model: nn.Module,
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    label_smoothing: float = 0.0,
    cross_entropy: Callable[..., Tensor] = cross_entropy,
) -> tuple[Float[Tensor, ""], int]:
    """Σ cross-entropy of the targets given the source and the targets before, and their number.

    `batch` is (source, source_mask, decoder inputs, targets), targets −100 at padding; the paper
    smooths labels by 0.1 (5.4).
    """
    source, source_mask, inputs, targets = batch
    logits = model(source, inputs, source_mask=source_mask)
    loss = cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")
    return loss, int((targets != IGNORED).sum())


@dataclass(frozen=True)
class EncDecConfig:
    """The numbers that define the model; `n_layers` each in encoder and decoder."""

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int | None = None
    dropout: float = 0.1
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.d_ff is None and isinstance(self.d_model, int):
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        names = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "d_ff")
        check_sizes(**{name: getattr(self, name) for name in names})
        check_dropout(self.dropout)
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}; "
                f"try d_model={self.d_model // self.n_heads * self.n_heads or self.n_heads}"
            )

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads: every query head has its own."""
        return self.n_heads

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


def init_transformer(model: nn.Module) -> None:
    """Matrices Glorot uniform, token vectors N(0, 1/d), biases 0, as in the authors' code.

    Times √d, token vectors then have entries of variance 1, like the sinusoids' order of size;
    without, as output layer, they give logits of variance about 1.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)


@dataclass(frozen=True)
class Memory:
    """What the decoder may look at: keys and values of the source for each layer, and its mask."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Bool[Tensor, "b s"] | None = None

    def repeat(self, n: int) -> "Memory":
        """Every row n times, side by side, for n hypotheses of the same source."""
        layers = tuple(
            (k.repeat_interleave(n, dim=0), v.repeat_interleave(n, dim=0)) for k, v in self.layers
        )
        return Memory(layers, None if self.mask is None else self.mask.repeat_interleave(n, dim=0))


class EncoderDecoder(nn.Module):
    """p(y | x) = Πᵢ p(yᵢ | y₁ … yᵢ₋₁, encoder(x)) (Vaswani et al. 2017).

    `block`, `decoder_block` and `final_norm` tell post-norm from pre-norm; `positions` are added to
    the tokens' vectors; `output_bias`, `activation` and `hub_format` serve `models.marian`; `ops`
    are the kernels used, `Ops()` when left out.
    """

    def __init__(
        self,
        config: EncDecConfig,
        *,
        block: Callable[..., nn.Module] = PostNormBlock,
        decoder_block: Callable[..., nn.Module] = PostNormDecoderBlock,
        final_norm: bool = False,
        positions: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] = relu,
        output_bias: bool = False,
        init: Callable[[nn.Module], None] = init_transformer,
        hub_format: HubFormat | None = None,
        ops: Ops | None = None,
    ) -> None:
        super().__init__()
        c, ops = config, ops or Ops()
        self.config, self.hub_format = config, hub_format

        def attention() -> nn.Module:
            return MultiHeadAttention(
                c.d_model, c.n_heads, attention=ops.attention, linear=ops.linear
            )

        def ffn() -> nn.Module:
            return FeedForward(c.d_model, c.d_ff, activation=activation, linear=ops.linear)

        def norm() -> nn.Module:
            return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

        self.tokens = nn.Embedding(c.vocab_size, c.d_model)
        self.positions = positions or SinusoidalPositions(c.max_seq_len, c.d_model)
        self.dropout = nn.Dropout(c.dropout) if c.dropout > 0 else nn.Identity()
        self.encoder = nn.ModuleList(
            block(attention(), ffn(), norm(), norm(), dropout=c.dropout) for _ in range(c.n_layers)
        )
        self.decoder = nn.ModuleList(
            decoder_block(
                attention(), attention(), ffn(), norm(), norm(), norm(), dropout=c.dropout
            )
            for _ in range(c.n_layers)
        )
        self.encoder_norm = norm() if final_norm else nn.Identity()
        self.decoder_norm = norm() if final_norm else nn.Identity()
        self.register_buffer("output_bias", torch.zeros(1, c.vocab_size) if output_bias else None)
        self.linear = ops.linear
        init(self)

    def forward(
        self,
        source: Int[Tensor, "b s"],
        target: Int[Tensor, "b t"],
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Logits of the next token after each of `target`, with all of `source` in view.

        `source_mask` is False at padding. Targets padded on the right need no mask: no earlier
        token looks there, and the loss ignores those places.
        """
        encoded = self.encode(source, source_mask=source_mask)
        return self.decode(target, self.remember(encoded, source_mask=source_mask))

    def encode(
        self, source: Int[Tensor, "b s"], *, source_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s d"]:
        """One vector per source token, each having looked at all others."""
        self._check(source, source_mask)
        mask = None if source_mask is None else padding_mask(source_mask)
        x = self._embed(source, 0)
        for block in self.encoder:
            x = block(x, mask=mask)
        return self.encoder_norm(x)

    def remember(
        self, encoded: Float[Tensor, "b s d"], *, source_mask: Bool[Tensor, "b s"] | None = None
    ) -> Memory:
        """Keys and values for every cross-attention: made once for a source, not per token."""
        layers = tuple(block.cross_attention.remember(encoded) for block in self.decoder)
        return Memory(layers, source_mask)

    def decode(
        self,
        target: Int[Tensor, "b t"],
        memory: Memory,
        *,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b n v"]:
        """Logits after each of `target` (only after the last with `last_only`).

        With a `cache`, which holds the keys and values of the decoder's earlier tokens, `target`
        are the tokens that follow them.
        """
        start = 0 if cache is None else cache.length
        self._check(target, None, start)
        mask = None if memory.mask is None else padding_mask(memory.mask)
        x = self._embed(target, start)
        for i, (block, pair) in enumerate(zip(self.decoder, memory.layers, strict=True)):
            layer = None if cache is None else cache[i]
            x = block(x, pair, memory_mask=mask, causal=True, cache=layer)
        x = self.decoder_norm(x[:, -1:] if last_only else x)
        return self.linear(
            x, self.tokens.weight, None if self.output_bias is None else self.output_bias[0]
        )

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """√d · token vector + position vector, with dropout (3.4, 3.5, 5.4)."""
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
        vectors = look_up(self.tokens.weight, tokens, "token ids") * math.sqrt(self.config.d_model)
        return self.dropout(vectors + self.positions(positions))

    def _check(self, tokens: Tensor, mask: Tensor | None, start: int = 0) -> None:
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"token ids must have shape (batch ≥ 1, length ≥ 1), got {tuple(tokens.shape)}; "
                "write `tokens[None]` for a single sequence"
            )
        if (end := start + tokens.shape[1]) > self.config.max_seq_len:
            raise ValueError(
                f"{end} positions exceed max_seq_len {self.config.max_seq_len}; "
                "cut the input, or build the model with a longer max_seq_len"
            )
        if mask is not None and mask.shape != tokens.shape:
            raise ValueError(
                f"source_mask {tuple(mask.shape)} must match the source {tuple(tokens.shape)}"
            )


class Conditioned(nn.Module):
    """The decoder with its source fixed: a language model p(yᵢ | y₁ … yᵢ₋₁) like any other.

    `generate`, `stream` and `beam_search` take it as they take a GPT.
    """

    def __init__(self, model: EncoderDecoder, memory: Memory) -> None:
        super().__init__()
        self.model, self.memory, self.config = model, memory, model.config
        self.training = model.training

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        cache: Cache | None = None,
        last_only: bool = False,
        positions: None = None,
        attention_mask: None = None,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the next token; targets all begin at position 0, so there is no padding."""
        return self.model.decode(tokens, self.memory, cache=cache, last_only=last_only)

    def repeat(self, n: int) -> "Conditioned":
        """The same with every row n times, for n hypotheses of each source."""
        return Conditioned(self.model, self.memory.repeat(n))


SIZES = {
    "base": {"d_model": 512, "n_layers": 6, "n_heads": 8, "d_ff": 2048, "dropout": 0.1},
    "big": {"d_model": 1024, "n_layers": 6, "n_heads": 16, "d_ff": 4096, "dropout": 0.3},
}


def transformer(
    size: str = "base", *, ops: Ops | None = None, **overrides: object
) -> EncoderDecoder:
    """The models of Vaswani et al. (2017), table 3, with English-German's 37,000 shared tokens."""
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(SIZES)}")
    numbers = {"vocab_size": 37_000, "max_seq_len": 512, **SIZES[size], **overrides}
    return EncoderDecoder(EncDecConfig(**numbers), ops=ops)


def transformer_pre_norm(*, ops: Ops | None = None, **numbers: object) -> EncoderDecoder:
    """The same with each norm before its part and one more at the end of both stacks."""
    return EncoderDecoder(
        EncDecConfig(**numbers),
        block=PreNormBlock,
        decoder_block=PreNormDecoderBlock,
        final_norm=True,
        ops=ops,
    )
