"""The Transformer of 2017 (Vaswani et al.): an encoder reads, a decoder writes and looks at it.

Post-norm blocks, sinusoids, one table of token vectors that serves the encoder, the decoder and,
transposed, the output layer. Pre-norm, or other parts, by handing them in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.models.conditional_lm import ConditionalLM, Conditioned, Memory, Stack
from minillm.models.hub_format import HubFormat
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PostNormBlock, PreNormBlock
from minillm.nn.decoder import PostNormDecoderBlock, PreNormDecoderBlock
from minillm.nn.ffn import FeedForward, relu
from minillm.nn.linear import check_dropout, check_heads, check_sizes
from minillm.nn.losses import cross_entropy
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import SinusoidalPositions

__all__ = [
    "Conditioned",
    "EncDecConfig",
    "EncoderDecoder",
    "Memory",
    "init_transformer",
    "shift_right",
    "transformer",
    "transformer_pre_norm",
    "translation_loss",
]

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
        check_heads(self.d_model, self.n_heads)

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


class EncoderDecoder(ConditionalLM):
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
        c, ops = config, ops or Ops()

        def attention() -> nn.Module:
            return MultiHeadAttention(
                c.d_model, c.n_heads, attention=ops.attention, linear=ops.linear
            )

        def ffn() -> nn.Module:
            return FeedForward(c.d_model, c.d_ff, activation=activation, linear=ops.linear)

        def norm() -> nn.Module:
            return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

        def encoder_block() -> nn.Module:
            return block(attention(), ffn(), norm(), norm(), dropout=c.dropout)

        def target_block() -> nn.Module:
            parts = attention(), attention(), ffn(), norm(), norm(), norm()
            return decoder_block(*parts, dropout=c.dropout)

        def stack(make: Callable[[], nn.Module]) -> Stack:
            blocks = [make() for _ in range(c.n_layers)]
            return Stack(blocks, positions, final_norm=norm() if final_norm else None)

        positions = positions or SinusoidalPositions(c.max_seq_len, c.d_model)
        super().__init__(
            c,
            stack(encoder_block),
            stack(target_block),
            output_bias=output_bias,
            embedding_scale=math.sqrt(c.d_model),
            dropout=c.dropout,
            hub_format=hub_format,
            ops=ops,
        )
        init(self)


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
