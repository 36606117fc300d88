"""The kernels as one value for a model's `ops=`: what Triton can serve it serves, the rest PyTorch.

model = gpt2(ops=TRITON_OPS)
"""

from dataclasses import replace

from minillm.kernels.activations import swiglu
from minillm.kernels.cross_entropy import cross_entropy
from minillm.kernels.flash_attention import flash_attention
from minillm.kernels.layer_norm import layer_norm
from minillm.kernels.rms_norm import rms_norm
from minillm.nn.ops import TORCH_OPS

TRITON_OPS = replace(
    TORCH_OPS,
    attention=flash_attention,
    layer_norm=layer_norm,
    rms_norm=rms_norm,
    swiglu=swiglu,
    cross_entropy=cross_entropy,
)
"""Every operation that has a kernel by it; the others as in `minillm.nn.ops.TORCH_OPS`."""
