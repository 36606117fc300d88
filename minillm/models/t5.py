"""T5 (Raffel et al. 2020), its version 1.1, and FLAN-T5, which is 1.1 trained further.

An encoder-decoder with pre-norm, RMSNorm, no bias anywhere, no position vectors and no 1/√p: where
a key stands reaches the scores as a trained bias, made once and shared by all layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from minillm.models.conditional_lm import ConditionalLM, Stack
from minillm.models.hub_format import HubFormat
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PreNormBlock
from minillm.nn.decoder import PreNormDecoderBlock
from minillm.nn.ffn import FeedForward, GatedFeedForward, geglu_tanh, relu
from minillm.nn.linear import check_dropout, check_sizes
from minillm.nn.norms import RMSNorm
from minillm.nn.ops import Ops
from minillm.nn.relative import RelativeBias


@dataclass(frozen=True)
class T5Config:
    """The numbers that define a T5; `n_layers` each in encoder and decoder.

    `d_head` need not be d_model / n_heads: the largest models have it twice or sixteen times as
    large. `max_seq_len` is a bound for memory only, since biases fit any length.
    """

    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_ff: int
    vocab_size: int = 32_128
    max_seq_len: int = 512
    n_buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.1
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        names = ("d_model", "n_layers", "n_heads", "d_head", "d_ff", "vocab_size", "max_seq_len")
        check_sizes(**{name: getattr(self, name) for name in names})
        check_dropout(self.dropout)

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads: every query head has its own."""
        return self.n_heads


def _names(side: str, ffn: dict[str, str]) -> dict[str, str]:
    """Tensors of one side in transformers' `T5ForConditionalGeneration` → ours."""
    attention = {"q": "query", "k": "key", "v": "value", "o": "output"}
    parts = {"SelfAttention": ("attention", attention)}
    if side == "decoder":
        parts["EncDecAttention"] = ("cross_attention", attention)
    parts["DenseReluDense"] = ("ffn", ffn)
    norms = {"SelfAttention": "attention_norm", "EncDecAttention": "cross_norm"}
    keys = {
        f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
            f"{side}_bias.weight"
        ),
        f"{side}.final_layer_norm.weight": f"{side}_norm.0.weight",
    }
    for number, (theirs, (ours, matrices)) in enumerate(parts.items()):
        layer = f"{side}.block.{{i}}.layer.{number}"
        norm = norms.get(theirs, "ffn_norm")
        keys[f"{layer}.layer_norm.weight"] = f"{side}.{{i}}.{norm}.weight"
        for a, b in matrices.items():
            keys[f"{layer}.{theirs}.{a}.weight"] = f"{side}.{{i}}.{ours}.{b}.weight"
    return keys


_CONFIG = {
    "vocab_size": "vocab_size",
    "n_positions": "max_seq_len",
    "d_model": "d_model",
    "num_layers": "n_layers",
    "num_decoder_layers": "n_layers",
    "num_heads": "n_heads",
    "d_kv": "d_head",
    "d_ff": "d_ff",
    "relative_attention_num_buckets": "n_buckets",
    "relative_attention_max_distance": "max_distance",
    "dropout_rate": "dropout",
    "layer_norm_epsilon": "norm_eps",
}
_FIXED = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "is_encoder_decoder": True,
}
_EXTRA = {"pad_token_id": 0, "decoder_start_token_id": 0}
_TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_WI = {"wi": "up", "wo": "down"}
_WI_0_1 = {"wi_0": "gate", "wi_1": "up", "wo": "down"}
T5_FORMAT = HubFormat(
    keys={
        "shared.weight": "tokens.weight",
        **_names("encoder", _WI),
        **_names("decoder", _WI),
    },
    tied=dict.fromkeys((*_TIED, "lm_head.weight"), "shared.weight"),
    obsolete=("EncDecAttention.relative_attention_bias.weight",),
    config=_CONFIG,
    fixed={**_FIXED, "feed_forward_proj": "relu", "tie_word_embeddings": True},
    accepted={"scale_decoder_outputs": True},
    extra=_EXTRA,
)
T5_1_1_FORMAT = HubFormat(
    keys={
        "shared.weight": "tokens.weight",
        "lm_head.weight": "output.weight",
        **_names("encoder", _WI_0_1),
        **_names("decoder", _WI_0_1),
    },
    tied=dict.fromkeys(_TIED, "shared.weight"),
    obsolete=("EncDecAttention.relative_attention_bias.weight",),
    config=_CONFIG,
    # transformers 5 writes tie_word_embeddings: true for every T5, and keeps the two tables apart
    fixed={**_FIXED, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": (False, True)},
    accepted={"scale_decoder_outputs": False},
    extra=_EXTRA,
)


def init_t5(model: ConditionalLM) -> None:
    """Normal weights with standard deviation 1/√d_in, queries another 1/√p less (the missing 1/√p).

    As in T5's own code. Token vectors have deviation 1; tied, they are output weights too, and
    that is why the decoder's vectors are multiplied by 1/√d before them. T5 1.1 has its own.
    """
    d_model, d_head = model.config.d_model, model.config.d_head
    nn.init.normal_(model.tokens.weight)
    for part in model.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
        elif isinstance(part, RelativeBias):
            nn.init.normal_(part.weight, std=d_model**-0.5)
    for part in model.modules():
        if isinstance(part, MultiHeadAttention):
            nn.init.normal_(part.query.weight, std=(d_model * d_head) ** -0.5)


PLAIN = partial(FeedForward, activation=relu)
GATED = partial(GatedFeedForward, gated=geglu_tanh)


class T5(ConditionalLM):
    """Two stacks of pre-norm blocks with T5's parts.

    `ffn(d_model, d_ff, bias=, dropout=, linear=)` makes a feed-forward layer, and `tied` says
    whether one table is input and output: these two tell T5 from its version 1.1.
    """

    def __init__(
        self,
        config: T5Config,
        *,
        ffn: Callable[..., nn.Module] = PLAIN,
        tied: bool = True,
        hub_format: HubFormat = T5_FORMAT,
        ops: Ops | None = None,
    ) -> None:
        c, ops = config, ops or Ops()
        heads = {"d_head": c.d_head, "bias": False, "dropout": c.dropout, "linear": ops.linear}
        scores: Callable[..., Tensor] = partial(ops.attention, scale=1.0)

        def attention() -> nn.Module:
            return MultiHeadAttention(c.d_model, c.n_heads, attention=scores, **heads)

        def layer() -> nn.Module:
            return ffn(c.d_model, c.d_ff, bias=False, dropout=c.dropout, linear=ops.linear)

        def norm() -> nn.Module:
            return RMSNorm(c.d_model, eps=c.norm_eps, op=ops.rms_norm)

        def block() -> nn.Module:
            return PreNormBlock(attention(), layer(), norm(), norm(), dropout=c.dropout)

        def decoder_block() -> nn.Module:
            parts = attention(), attention(), layer(), norm(), norm(), norm()
            return PreNormDecoderBlock(*parts, dropout=c.dropout)

        def stack(make: Callable[[], nn.Module], *, bidirectional: bool) -> Stack:
            sizes = {"n_buckets": c.n_buckets, "max_distance": c.max_distance}
            return Stack(
                [make() for _ in range(c.n_layers)],
                relative_bias=RelativeBias(c.n_heads, bidirectional=bidirectional, **sizes),
                final_norm=nn.Sequential(norm(), nn.Dropout(c.dropout)),
            )

        super().__init__(
            c,
            stack(block, bidirectional=True),
            stack(decoder_block, bidirectional=False),
            tied=tied,
            output_scale=c.d_model**-0.5 if tied else 1.0,
            dropout=c.dropout,
            hub_format=hub_format,
            ops=ops,
        )
        init_t5(self)


T5_SIZES = {
    "small": {"d_model": 512, "n_layers": 6, "n_heads": 8, "d_head": 64, "d_ff": 2048},
    "base": {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_head": 64, "d_ff": 3072},
    "large": {"d_model": 1024, "n_layers": 24, "n_heads": 16, "d_head": 64, "d_ff": 4096},
    "3b": {"d_model": 1024, "n_layers": 24, "n_heads": 32, "d_head": 128, "d_ff": 16_384},
    "11b": {"d_model": 1024, "n_layers": 24, "n_heads": 128, "d_head": 128, "d_ff": 65_536},
}
T5_1_1_SIZES = {
    "small": {"d_model": 512, "n_layers": 8, "n_heads": 6, "d_head": 64, "d_ff": 1024},
    "base": {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_head": 64, "d_ff": 2048},
    "large": {"d_model": 1024, "n_layers": 24, "n_heads": 16, "d_head": 64, "d_ff": 2816},
    "xl": {"d_model": 2048, "n_layers": 24, "n_heads": 32, "d_head": 64, "d_ff": 5120},
    "xxl": {"d_model": 4096, "n_layers": 24, "n_heads": 64, "d_head": 64, "d_ff": 10_240},
}


def t5(size: str = "small", *, ops: Ops | None = None, **overrides: object) -> T5:
    """T5 of 2019: ReLU, one table for input and output. `overrides` change fields of the config."""
    return T5(T5Config(**{**_size(size, T5_SIZES), **overrides}), ops=ops)


def t5_1_1(size: str = "small", *, ops: Ops | None = None, **overrides: object) -> T5:
    """T5 1.1 of 2020, and FLAN-T5: a gated feed-forward layer (GeGLU), an output layer of its own.

    It was pretrained without dropout, which fine-tuning then turns on.
    """
    return T5(
        T5Config(**{**_size(size, T5_1_1_SIZES), **overrides}),
        ffn=GATED,
        tied=False,
        hub_format=T5_1_1_FORMAT,
        ops=ops,
    )


def _size(size: str, sizes: dict[str, dict[str, int]]) -> dict[str, int]:
    if size not in sizes:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(sizes)}")
    return sizes[size]
