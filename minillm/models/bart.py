"""BART (Lewis et al. 2020): the 2017 model with learned positions and exact GELU, for denoising.

Its blocks are post-norm, its token vectors are normalized once more before the first block, not
scaled, and the position table begins with two rows that no token ever uses.
"""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.models.conditional_lm import ConditionalLM, Stack
from minillm.models.encdec import EncDecConfig
from minillm.models.hub_format import HubFormat
from minillm.models.marian import MARIAN_FORMAT
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PostNormBlock
from minillm.nn.decoder import PostNormDecoderBlock
from minillm.nn.ffn import FeedForward, gelu_exact
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import LearnedPositions

OFFSET = 2


class OffsetPositions(nn.Module):
    """Learned positions whose first token takes row 2 of the table.

    A leftover of the original code, where rows up to the id of the padding token (1) were reserved.
    """

    def __init__(self, max_seq_len: int, d_model: int) -> None:
        super().__init__()
        self.table = LearnedPositions(max_seq_len + OFFSET, d_model)

    def forward(self, positions: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return rows `positions` + 2."""
        return self.table(positions + OFFSET)


def _embedding_keys(side: str) -> dict[str, str]:
    positions = {"encoder": "positions", "decoder": "decoder_positions"}[side]
    norm = f"model.{side}.layernorm_embedding"
    return {
        f"model.{side}.embed_positions.weight": f"{positions}.table.weight",
        f"{norm}.weight": f"{side}_embedding_norm.weight",
        f"{norm}.bias": f"{side}_embedding_norm.bias",
    }


BART_FORMAT = HubFormat(
    keys={**MARIAN_FORMAT.keys, **_embedding_keys("encoder"), **_embedding_keys("decoder")},
    tied=MARIAN_FORMAT.tied,
    config={k: v for k, v in MARIAN_FORMAT.config.items() if k != "decoder_vocab_size"},
    fixed={
        "model_type": "bart",
        "architectures": ["BartForConditionalGeneration"],
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "activation_function": "gelu",
    },
    extra={"pad_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": None},
)


def init_bart(model: nn.Module) -> None:
    """Matrices, token and position vectors N(0, 0.02²), biases 0, as transformers has it."""
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Embedding | LearnedPositions):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


class BART(ConditionalLM):
    """Post-norm blocks on normalized sums of token and learned position vectors.

    The bias on the logits is a buffer of zeros, as in checkpoints: it is not trained.
    """

    def __init__(self, config: EncDecConfig, *, ops: Ops | None = None) -> None:
        c, ops = config, ops or Ops()

        def attention() -> nn.Module:
            return MultiHeadAttention(
                c.d_model, c.n_heads, attention=ops.attention, linear=ops.linear
            )

        def ffn() -> nn.Module:
            return FeedForward(c.d_model, c.d_ff, activation=gelu_exact, linear=ops.linear)

        def norm() -> nn.Module:
            return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

        def block() -> nn.Module:
            return PostNormBlock(attention(), ffn(), norm(), norm(), dropout=c.dropout)

        def decoder_block() -> nn.Module:
            parts = attention(), attention(), ffn(), norm(), norm(), norm()
            return PostNormDecoderBlock(*parts, dropout=c.dropout)

        def stack(make: Callable[[], nn.Module]) -> Stack:
            blocks = [make() for _ in range(c.n_layers)]
            return Stack(blocks, OffsetPositions(c.max_seq_len, c.d_model), embedding_norm=norm())

        super().__init__(
            c,
            stack(block),
            stack(decoder_block),
            output_bias=True,
            dropout=c.dropout,
            hub_format=BART_FORMAT,
            ops=ops,
        )
        init_bart(self)


BART_SIZES = {
    "base": {"d_model": 768, "n_layers": 6, "n_heads": 12},
    "large": {"d_model": 1024, "n_layers": 12, "n_heads": 16},
}


def bart(size: str = "base", *, ops: Ops | None = None, **overrides: object) -> BART:
    """One of the two published sizes; `overrides` change fields of the config."""
    if size not in BART_SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(BART_SIZES)}")
    numbers = {"vocab_size": 50_265, "max_seq_len": 1024, **BART_SIZES[size], **overrides}
    return BART(EncDecConfig(**numbers), ops=ops)
