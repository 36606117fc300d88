"""Layers: attention, positions, norms, feed-forward, blocks, losses, and the ops they use."""

from minillm.nn.additive_attention import AdditiveAttention
from minillm.nn.attention import (
    Cache,
    LayerCache,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    padding_mask,
    scaled_dot_product_attention,
)
from minillm.nn.blocks import (
    DeepNormBlock,
    ParallelBlock,
    PostNormBlock,
    PreNormBlock,
    SandwichNormBlock,
    deepnorm_factors,
    init_deepnorm,
)
from minillm.nn.crf import LinearChainCRF
from minillm.nn.decoder import PostNormDecoderBlock, PreNormDecoderBlock
from minillm.nn.ffn import (
    FeedForward,
    GatedFeedForward,
    gated_width,
    geglu,
    geglu_tanh,
    gelu_exact,
    gelu_tanh,
    relu,
    silu,
    swiglu,
)
from minillm.nn.linear import Linear
from minillm.nn.losses import cross_entropy, z_loss
from minillm.nn.norms import LayerNorm, RMSNorm, layer_norm, rms_norm
from minillm.nn.ops import TORCH_OPS, Ops
from minillm.nn.positions import LearnedPositions, SinusoidalPositions, sinusoidal
from minillm.nn.recurrent import GRUCell, LSTMCell, Recurrent, RecurrentLayer, RNNCell
from minillm.nn.sparse import SparseAttention, sliding_window, strided

__all__ = [
    "TORCH_OPS",
    "AdditiveAttention",
    "Cache",
    "DeepNormBlock",
    "FeedForward",
    "GRUCell",
    "GatedFeedForward",
    "LSTMCell",
    "LayerCache",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "LinearChainCRF",
    "MultiHeadAttention",
    "Ops",
    "ParallelBlock",
    "PostNormBlock",
    "PostNormDecoderBlock",
    "PreNormBlock",
    "PreNormDecoderBlock",
    "RMSNorm",
    "RNNCell",
    "Recurrent",
    "RecurrentLayer",
    "SandwichNormBlock",
    "SinusoidalPositions",
    "SparseAttention",
    "attention_weights",
    "causal_mask",
    "cross_entropy",
    "deepnorm_factors",
    "gated_width",
    "geglu",
    "geglu_tanh",
    "gelu_exact",
    "gelu_tanh",
    "init_deepnorm",
    "layer_norm",
    "padding_mask",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "silu",
    "sinusoidal",
    "sliding_window",
    "strided",
    "swiglu",
    "z_loss",
]
