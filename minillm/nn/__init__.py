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
from minillm.nn.block_rotary import BlockRotary
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
from minillm.nn.norms import LayerNorm, OffsetRMSNorm, RMSNorm, layer_norm, rms_norm
from minillm.nn.ops import TORCH_OPS, Ops
from minillm.nn.positions import (
    BlockPositions,
    LearnedPositions,
    SinusoidalPositions,
    block_positions,
    sinusoidal,
)
from minillm.nn.prefix import prefix_mask
from minillm.nn.recurrent import GRUCell, LSTMCell, Recurrent, RecurrentLayer, RNNCell
from minillm.nn.relative import (
    RelativeBias,
    alibi_attention,
    alibi_bias,
    alibi_slopes,
    distances,
    t5_buckets,
)
from minillm.nn.rotary import (
    Rotary,
    halves_to_pairs,
    pairs_from_halves,
    pairs_to_halves,
    rotary_frequencies,
    rotate_halves,
    rotate_pairs,
)
from minillm.nn.rotary_scaling import (
    DynamicRotary,
    llama3_scaling,
    ntk_aware,
    ntk_by_parts,
    position_interpolation,
    yarn,
    yarn_scale,
)
from minillm.nn.sparse import SparseAttention, sliding_window, strided

__all__ = [
    "TORCH_OPS",
    "AdditiveAttention",
    "BlockPositions",
    "BlockRotary",
    "Cache",
    "DeepNormBlock",
    "DynamicRotary",
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
    "OffsetRMSNorm",
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
    "RelativeBias",
    "Rotary",
    "SandwichNormBlock",
    "SinusoidalPositions",
    "SparseAttention",
    "alibi_attention",
    "alibi_bias",
    "alibi_slopes",
    "attention_weights",
    "block_positions",
    "causal_mask",
    "cross_entropy",
    "deepnorm_factors",
    "distances",
    "gated_width",
    "geglu",
    "geglu_tanh",
    "gelu_exact",
    "gelu_tanh",
    "halves_to_pairs",
    "init_deepnorm",
    "layer_norm",
    "llama3_scaling",
    "ntk_aware",
    "ntk_by_parts",
    "padding_mask",
    "pairs_from_halves",
    "pairs_to_halves",
    "position_interpolation",
    "prefix_mask",
    "relu",
    "rms_norm",
    "rotary_frequencies",
    "rotate_halves",
    "rotate_pairs",
    "scaled_dot_product_attention",
    "silu",
    "sinusoidal",
    "sliding_window",
    "strided",
    "swiglu",
    "t5_buckets",
    "yarn",
    "yarn_scale",
    "z_loss",
]
