"""GPT-3 (Brown et al. 2020) and GPT-Neo: GPT-2 whose layers are dense and banded in turn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

from torch import Tensor, nn

from minillm.models.causal_lm import CausalLM
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.hub_format import HubFormat, Setting
from minillm.nn.attention import MultiHeadAttention
from minillm.nn.blocks import PreNormBlock
from minillm.nn.ffn import FeedForward
from minillm.nn.linear import check_sizes
from minillm.nn.norms import LayerNorm
from minillm.nn.ops import Ops
from minillm.nn.positions import LearnedPositions
from minillm.nn.sparse import alternate, sliding_window


@dataclass(frozen=True)
class BandedConfig(GPTConfig):
    """A GPT in which every second layer sees the last `window` tokens only."""

    window: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(window=self.window)


# Brown et al. 2020, table 2.1. Two of its rows do not add up and stand here as they are built
# elsewhere: XL, 24 heads of 128 for a width of 2048 (16 fit), and 13B, a width of 5140 (40 heads
# of 128 make 5120).
GPT3_SIZES = {
    "125m": {"d_model": 768, "n_layers": 12, "n_heads": 12},
    "350m": {"d_model": 1024, "n_layers": 24, "n_heads": 16},
    "760m": {"d_model": 1536, "n_layers": 24, "n_heads": 16},
    "1.3b": {"d_model": 2048, "n_layers": 24, "n_heads": 16},
    "2.7b": {"d_model": 2560, "n_layers": 32, "n_heads": 32},
    "6.7b": {"d_model": 4096, "n_layers": 32, "n_heads": 32},
    "13b": {"d_model": 5120, "n_layers": 40, "n_heads": 40},
    "175b": {"d_model": 12288, "n_layers": 96, "n_heads": 96},
}


def gpt3(size: str = "175b", *, ops: Ops | None = None, **overrides: Any) -> GPT:
    """GPT-3 (Brown et al. 2020, 2.1): layers 0, 2, … dense, 1, 3, … banded; the rest is GPT-2's.

    The paper publishes neither the width of the band nor which layers have it; 256 and "every
    second" are GPT-Neo's. No checkpoint format exists, so it cannot be exported.
    """
    if not isinstance(size, str) or size not in GPT3_SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(GPT3_SIZES)}")
    numbers = {"vocab_size": 50257, "max_seq_len": 2048, **GPT3_SIZES[size], **overrides}
    config, ops = BandedConfig(**numbers), ops or Ops()
    model = GPT(config, hub_format=None, ops=ops)
    alternate(model.blocks, ops.attention, sliding_window(config.window))
    return model


GPT_NEO_SIZES = {
    "125m": {"d_model": 768, "n_layers": 12, "n_heads": 12},
    "1.3b": {"d_model": 2048, "n_layers": 24, "n_heads": 16},
    "2.7b": {"d_model": 2560, "n_layers": 32, "n_heads": 20},
}


def gpt_neo(size: str = "125m", *, ops: Ops | None = None, **overrides: Any) -> CausalLM:
    """GPT-Neo (Black et al. 2021), an open GPT-3: dense and banded layers in turn.

    Two things are its own: scores are not divided by √p, and queries, keys and values have no bias.
    """
    if not isinstance(size, str) or size not in GPT_NEO_SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(GPT_NEO_SIZES)}")
    numbers = {"vocab_size": 50257, "max_seq_len": 2048, **GPT_NEO_SIZES[size], **overrides}
    c, ops = BandedConfig(**numbers), ops or Ops()

    def norm() -> nn.Module:
        return LayerNorm(c.d_model, eps=c.norm_eps, op=ops.layer_norm)

    def block(operation: Callable[..., Tensor]) -> nn.Module:
        attention = MultiHeadAttention(
            c.d_model, c.n_heads, bias=False, output_bias=True, dropout=c.dropout,
            attention=partial(operation, scale=1.0), linear=ops.linear,
        )  # fmt: skip
        ffn = FeedForward(c.d_model, c.d_ff, activation=ops.gelu_tanh, linear=ops.linear)
        return PreNormBlock(attention, ffn, norm(), norm(), dropout=c.dropout)

    in_turn = islice(cycle([ops.attention, sliding_window(c.window)]), c.n_layers)
    model = CausalLM(
        c,
        (block(operation) for operation in in_turn),
        final_norm=norm(),
        positions=LearnedPositions(c.max_seq_len, c.d_model),
        dropout=c.dropout,
        hub_format=GPT_NEO_FORMAT,
        ops=ops,
    )
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def _read_pattern(types: Any) -> int:
    """The number of layers that `attention_types` lists, if they are dense and banded in turn."""
    try:
        kinds = [kind for group, times in types for _ in range(times) for kind in group]
    except (TypeError, ValueError) as error:
        raise ValueError(f"attention_types={types!r:.80} is no list of [kinds, times]") from error
    if not _in_turn(kinds):
        raise ValueError(f"attention_types={types!r:.80}: only global and local in turn is known")
    return len(kinds)


def _in_turn(kinds: Any) -> bool:
    """Whether a list of layers is global, local, global, …"""
    return list(kinds) == list(islice(cycle(["global", "local"]), len(kinds)))


def _write_pattern(n_layers: int) -> list:
    """`attention_types` for `n_layers` layers, dense and banded in turn."""
    odd = [[["global"], 1]] if n_layers % 2 else []
    return [[["global", "local"], n_layers // 2], *odd]


_BLOCK = "transformer.h.{i}."
_PARTS = {
    "ln_1": "attention_norm",
    "ln_2": "ffn_norm",
    "attn.attention.out_proj": "attention.output",
    "mlp.c_fc": "ffn.up",
    "mlp.c_proj": "ffn.down",
}
_PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
GPT_NEO_FORMAT = HubFormat(
    keys={
        "transformer.wte.weight": "tokens.weight",
        "transformer.wpe.weight": "positions.weight",
        **{
            f"{_BLOCK}{theirs}.{kind}": f"blocks.{{i}}.{ours}.{kind}"
            for theirs, ours in _PARTS.items()
            for kind in ("weight", "bias")
        },
        **{
            f"{_BLOCK}attn.attention.{theirs}.weight": f"blocks.{{i}}.attention.{ours}.weight"
            for theirs, ours in _PROJECTIONS.items()
        },
        "transformer.ln_f.weight": "final_norm.weight",
        "transformer.ln_f.bias": "final_norm.bias",
    },
    tied={"lm_head.weight": "transformer.wte.weight"},
    obsolete=("attn.attention.bias", "attn.attention.masked_bias"),
    prefix="transformer.",
    config={
        "vocab_size": "vocab_size",
        "max_position_embeddings": "max_seq_len",
        "hidden_size": "d_model",
        "num_layers": "n_layers",
        "attention_types": Setting("n_layers", read=_read_pattern, write=_write_pattern),
        "num_heads": "n_heads",
        "intermediate_size": "d_ff",
        "window_size": "window",
        "layer_norm_epsilon": "norm_eps",
        "resid_dropout": "dropout",
        "embed_dropout": "dropout",
        "attention_dropout": "dropout",
    },
    fixed={
        "model_type": "gpt_neo",
        "architectures": ["GPTNeoForCausalLM"],
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "tie_word_embeddings": True,
    },
    accepted={"classifier_dropout": lambda value: True, "attention_layers": _in_turn},
)
