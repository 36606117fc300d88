"""The mask of a prefix model: a part that is read both ways, and a part that is written (GLM)."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minillm.nn.linear import check_sizes


def prefix_mask(context: Int[Tensor, " b"], t: int) -> Bool[Tensor, "b 1 t t"]:
    """True where query i may see key j: j < context (part A) or j ≤ i (Du et al. 2022, figure 2d).

    The first `context` tokens of a row are part A: all see all of it, and it sees nothing else.
    What follows is part B: it sees A and what stands before it in B. With context 0 or 1 the mask
    is causal, with context t it hides nothing.
    """
    check_sizes(t=t)
    if context.ndim != 1 or context.is_floating_point() or context.dtype == torch.bool:
        raise ValueError(
            f"context must be one whole number per row, got {context.dtype} {tuple(context.shape)}"
        )
    if not bool(((context >= 0) & (context <= t)).all()):
        raise ValueError(f"context must lie in 0 … {t}, the tokens there are, got {context}")
    key = torch.arange(t, device=context.device)
    return (key < context[:, None, None])[:, None] | (key <= key[:, None])
