"""BERT (Devlin et al. 2019): a Transformer encoder pretrained to fill in blanks.

x = norm(E[token] + P[position] + S[segment]), then L post-norm blocks in which every token sees
every other. The heads of pretraining are in `models.bert_pretraining`, those of classification and
tagging in `models.bert_heads`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.hub_format import LABELS, HubFormat
from minillm.nn.attention import MultiHeadAttention, padding_mask
from minillm.nn.blocks import PostNormBlock
from minillm.nn.ffn import FeedForward, gelu_exact
from minillm.nn.linear import check_dropout, check_heads, check_sizes
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import LearnedPositions, look_up


@dataclass(frozen=True)
class BertConfig:
    """The numbers that define a BERT; `d_ff` is 4 · d_model when left out.

    `n_labels` counts the classes of a task's head, where there is one.
    """

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int | None = None
    n_segments: int = 2
    dropout: float = 0.1
    norm_eps: float = 1e-12
    n_labels: int = 2

    def __post_init__(self) -> None:
        if self.d_ff is None and isinstance(self.d_model, int):
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        names = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "d_ff")
        check_sizes(**{name: getattr(self, name) for name in (*names, "n_segments", "n_labels")})
        check_dropout(self.dropout)
        if not isinstance(self.norm_eps, int | float) or not 0 <= self.norm_eps < 1:
            raise ValueError(f"norm_eps must be in [0, 1), such as 1e-12, got {self.norm_eps!r}")
        check_heads(self.d_model, self.n_heads)

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads: in a BERT every query head has its own."""
        return self.n_heads

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


def init_bert(model: nn.Module) -> None:
    """Matrices and tables from N(0, 0.02²) cut off at ±0.04, biases 0 (as the authors' code)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | LearnedPositions):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "ffn.up",
    "output.dense": "ffn.down",
    "output.LayerNorm": "ffn_norm",
}


def named(pairs: dict[str, str]) -> dict[str, str]:
    """Add `.weight` and `.bias` to both sides of a map of layers."""
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in pairs.items() for kind in ("weight", "bias")}


def encoder_keys(theirs: str = "", ours: str = "") -> dict[str, str]:
    """Key map of the encoder, with what stands before each name (`bert.`, `encoder.`)."""
    tables = {
        f"{theirs}embeddings.{kind}_embeddings.weight": f"{ours}{name}.weight"
        for kind, name in (
            ("word", "tokens"),
            ("position", "positions"),
            ("token_type", "segments"),
        )
    }
    norm = {f"{theirs}embeddings.LayerNorm": f"{ours}embedding_norm"}
    layers = {f"encoder.layer.{{i}}.{a}": f"blocks.{{i}}.{b}" for a, b in _LAYER.items()}
    layers = {theirs + a: ours + b for a, b in layers.items()}
    return {**tables, **named(norm), **named(layers)}


CONFIG_KEYS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_seq_len",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "d_ff",
    "type_vocab_size": "n_segments",
    "layer_norm_eps": "norm_eps",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "dropout",
}
FIXED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
BERT_FORMAT = HubFormat(
    keys=encoder_keys(),
    config=CONFIG_KEYS | {"id2label": LABELS},
    fixed=FIXED | {"architectures": ["BertModel"]},
    # the pooler of a bare file belongs to next-sentence prediction: the encoder has no use for it
    obsolete=("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"),
)


class Bert(nn.Module):
    """One vector per token, each token having looked at all others on both sides.

    `positions` is a module that is added to the tokens' vectors, `activation` that of the
    feed-forward layers; `hub_format` says how checkpoints name the parts; `ops` are the kernels.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        positions: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] = gelu_exact,
        hub_format: HubFormat = BERT_FORMAT,
        ops: Ops | None = None,
    ) -> None:
        if not isinstance(config, BertConfig):
            raise ValueError(f"config is {config!r:.60}; write Bert(BertConfig(...)), or bert()")
        super().__init__()
        c, ops = config, ops or Ops()
        self.config, self.hub_format, self.activation, self.ops = c, hub_format, activation, ops

        def block() -> nn.Module:
            attention = MultiHeadAttention(
                c.d_model, c.n_heads, dropout=c.dropout, attention=ops.attention, linear=ops.linear
            )
            ffn = FeedForward(c.d_model, c.d_ff, activation=activation, linear=ops.linear)
            return PostNormBlock(attention, ffn, self.norm(), self.norm(), dropout=c.dropout)

        self.tokens = nn.Embedding(c.vocab_size, c.d_model)
        self.positions = positions or LearnedPositions(c.max_seq_len, c.d_model)
        self.segments = nn.Embedding(c.n_segments, c.d_model)
        self.embedding_norm = self.norm()
        self.dropout = nn.Dropout(c.dropout) if c.dropout > 0 else nn.Identity()
        self.blocks = nn.ModuleList(block() for _ in range(c.n_layers))
        init_bert(self)

    def norm(self) -> nn.Module:
        """A fresh LayerNorm with this model's width and epsilon."""
        return LayerNorm(self.config.d_model, eps=self.config.norm_eps, op=self.ops.layer_norm)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        segments: Int[Tensor, "b t"] | None = None,
        positions: Int[Tensor, "b t"] | None = None,
        attention_mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The last block's vectors.

        `segments` says which sentence a token belongs to (0 when left out); `attention_mask` is
        False at padding. Padding on the left needs `positions` too (by default 0, 1, 2, …).
        """
        self._check(tokens, segments, positions, attention_mask)
        mask = None if attention_mask is None else padding_mask(attention_mask)
        x = self.embed(tokens, segments, positions)
        for block in self.blocks:
            x = block(x, mask=mask)
        return x

    def embed(
        self, tokens: Tensor, segments: Tensor | None = None, positions: Tensor | None = None
    ) -> Float[Tensor, "b t d"]:
        """norm(E[token] + P[position] + S[segment]): what the first block reads."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        segments = torch.zeros_like(tokens) if segments is None else segments
        x = look_up(self.tokens.weight, tokens, "token ids") + self.positions(positions)
        x = x + look_up(self.segments.weight, segments, "segments")
        return self.dropout(self.embedding_norm(x))

    def _check(
        self,
        tokens: Tensor,
        segments: Tensor | None,
        positions: Tensor | None,
        attention_mask: Tensor | None,
    ) -> None:
        if not isinstance(tokens, Tensor):
            raise ValueError(f"tokens is {tokens!r:.60}; write `torch.tensor(tokens)`")
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"tokens must have shape (batch ≥ 1, length ≥ 1), got {tuple(tokens.shape)}; "
                "write `tokens[None]` for a single sequence"
            )
        if positions is None and tokens.shape[1] > self.config.max_seq_len:
            raise ValueError(
                f"{tokens.shape[1]} positions exceed max_seq_len {self.config.max_seq_len}; "
                "cut the input, or build the model with a longer max_seq_len"
            )
        given = {"segments": segments, "positions": positions, "attention_mask": attention_mask}
        for name, tensor in given.items():
            if tensor is not None and tensor.shape != tokens.shape:
                raise ValueError(
                    f"{name} {tuple(tensor.shape)} must match tokens {tuple(tokens.shape)}"
                )


BERT_SIZES = {
    "base": {"d_model": 768, "n_layers": 12, "n_heads": 12},
    "large": {"d_model": 1024, "n_layers": 24, "n_heads": 16},
}


def bert(size: str = "base", *, ops: Ops | None = None, **overrides: Any) -> Bert:
    """BERT-base or -large, uncased (Devlin et al. 2019, 3); `overrides` change config fields."""
    if not isinstance(size, str) or size not in BERT_SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(BERT_SIZES)}")
    numbers = {"vocab_size": 30522, "max_seq_len": 512, **BERT_SIZES[size], **overrides}
    return Bert(BertConfig(**numbers), ops=ops)


def minilm_l6(*, ops: Ops | None = None, **overrides: Any) -> Bert:
    """MiniLM's encoder (Wang et al. 2020): a BERT of 6 layers and width 384, distilled."""
    numbers = BertConfig(vocab_size=30522, max_seq_len=512, d_model=384, n_layers=6, n_heads=12)
    return Bert(replace(numbers, **{"d_ff": None, **overrides}), ops=ops)
