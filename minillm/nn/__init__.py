"""Layers: attention, positions, norms, feed-forward, blocks, losses, and the ops they use."""

from minillm.nn.attention import (
    Cache,
    LayerCache,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    padding_mask,
    scaled_dot_product_attention,
)
from minillm.nn.blocks import PostNormBlock, PreNormBlock
from minillm.nn.ffn import FeedForward, gelu_exact, gelu_tanh, relu, silu
from minillm.nn.linear import Linear
from minillm.nn.losses import cross_entropy, z_loss
from minillm.nn.norms import LayerNorm, RMSNorm, layer_norm, rms_norm
from minillm.nn.ops import TORCH_OPS, Ops
from minillm.nn.positions import LearnedPositions, SinusoidalPositions, sinusoidal

__all__ = [
    "TORCH_OPS",
    "Cache",
    "FeedForward",
    "LayerCache",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "MultiHeadAttention",
    "Ops",
    "PostNormBlock",
    "PreNormBlock",
    "RMSNorm",
    "SinusoidalPositions",
    "attention_weights",
    "causal_mask",
    "cross_entropy",
    "gelu_exact",
    "gelu_tanh",
    "layer_norm",
    "padding_mask",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "silu",
    "sinusoidal",
    "z_loss",
]
