"""Marian (Junczys-Dowmunt et al. 2018): the 2017 model as its OPUS-MT checkpoints have it.

Three things differ from the paper: SiLU in the feed-forward layers, a bias on the logits, and
position vectors with all sines before all cosines. The key map is transformers' `MarianMTModel`.
"""

import torch

from minillm.models.encdec import EncDecConfig, EncoderDecoder
from minillm.models.hub_format import HubFormat
from minillm.nn.ffn import silu
from minillm.nn.ops import Ops
from minillm.nn.positions import SinusoidalPositions

_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}


def _layer_keys(side: str, parts: dict[str, str]) -> dict[str, str]:
    """Names of weight and bias of every part of a layer, theirs → ours."""
    return {
        f"model.{side}.layers.{{i}}.{theirs}.{kind}": f"{side}.{{i}}.{ours}.{kind}"
        for theirs, ours in parts.items()
        for kind in ("weight", "bias")
    }


_ENCODER = {
    **{f"self_attn.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "self_attn_layer_norm": "attention_norm",
    "fc1": "ffn.up",
    "fc2": "ffn.down",
    "final_layer_norm": "ffn_norm",
}
_DECODER = {
    **_ENCODER,
    **{f"encoder_attn.{theirs}": f"cross_attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "encoder_attn_layer_norm": "cross_norm",
}
_CONFIG_KEYS = {
    "vocab_size": "vocab_size",
    "decoder_vocab_size": "vocab_size",
    "max_position_embeddings": "max_seq_len",
    "d_model": "d_model",
    "encoder_layers": "n_layers",
    "decoder_layers": "n_layers",
    "encoder_attention_heads": "n_heads",
    "decoder_attention_heads": "n_heads",
    "encoder_ffn_dim": "d_ff",
    "decoder_ffn_dim": "d_ff",
    "dropout": "dropout",
}
_FIXED = {
    "model_type": "marian",
    "architectures": ["MarianMTModel"],
    "is_encoder_decoder": True,
    "scale_embedding": True,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "activation_function": "swish",
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
MARIAN_FORMAT = HubFormat(
    keys={
        "model.shared.weight": "tokens.weight",
        "final_logits_bias": "output_bias",
        **_layer_keys("encoder", _ENCODER),
        **_layer_keys("decoder", _DECODER),
    },
    tied=dict.fromkeys(
        (
            "lm_head.weight",
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
        ),
        "model.shared.weight",
    ),
    obsolete=("embed_positions.weight",),
    config=_CONFIG_KEYS,
    fixed=_FIXED,
)


def marian(*, ops: Ops | None = None, **overrides: object) -> EncoderDecoder:
    """OPUS-MT's size (6 layers, d = 512) unless `overrides` change fields of the config."""
    numbers = {
        "vocab_size": 58_101,
        "max_seq_len": 512,
        "d_model": 512,
        "n_layers": 6,
        "n_heads": 8,
        "d_ff": 2048,
        **overrides,
    }
    config = EncDecConfig(**numbers)
    positions = SinusoidalPositions(config.max_seq_len, config.d_model)
    table = positions.table
    positions.table = torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)
    return EncoderDecoder(
        config,
        positions=positions,
        activation=silu,
        output_bias=True,
        hub_format=MARIAN_FORMAT,
        ops=ops,
    )
