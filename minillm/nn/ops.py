"""The operations a model is built from, handed in as one value so that faster ones can step in.

`Ops()` holds the readable references; `TORCH_OPS` PyTorch's fused kernels with the same signatures.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.nn import attention as reference
from minillm.nn import ffn, losses, norms
from minillm.nn.attention import causal_mask, check_qkv
from minillm.nn.linear import linear


@dataclass(frozen=True)
class Ops:
    """One function per operation, by default this package's readable reference."""

    attention: Callable[..., Tensor] = reference.scaled_dot_product_attention
    layer_norm: Callable[..., Tensor] = norms.layer_norm
    rms_norm: Callable[..., Tensor] = norms.rms_norm
    gelu_tanh: Callable[[Tensor], Tensor] = ffn.gelu_tanh
    swiglu: Callable[[Tensor, Tensor], Tensor] = ffn.swiglu
    cross_entropy: Callable[..., Tensor] = losses.cross_entropy
    linear: Callable[..., Tensor] = linear


def torch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`scaled_dot_product_attention` by PyTorch's fused kernel, which never stores the weights.

    PyTorch aligns its own causal mask to the top left, so it is used only where t = s; with a cache
    the bottom-right mask is built here, and one single query needs none.
    """
    check_qkv(q, k, v, mask, bias)
    t, s = q.shape[2], k.shape[2]
    square = causal and t > 1 and t == s and mask is None and bias is None
    if causal and not square and (t > 1 or s < t):
        allowed = causal_mask(t, s, device=q.device)
        mask = allowed if mask is None else mask & allowed
    if bias is not None:  # the kernel takes one of the two: a mask, or numbers to add
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=square, scale=scale, enable_gqa=grouped
    )


def torch_layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """`layer_norm` by PyTorch's fused kernel."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def torch_rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """`rms_norm` by PyTorch's kernel."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def torch_gelu_tanh(x: Tensor) -> Tensor:
    """`gelu_tanh` by PyTorch's fused kernel."""
    return F.gelu(x, approximate="tanh")


def torch_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`swiglu` with PyTorch's kernel for the SiLU."""
    return F.silu(gate) * up


def torch_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """`cross_entropy` by PyTorch's fused kernel."""
    losses.check_loss(logits, targets, label_smoothing)
    try:
        loss = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            targets.reshape(-1).long(),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
    except IndexError as error:
        raise losses.out_of_range(targets, ignore_index, logits.shape[-1]) from error
    return loss.view(targets.shape) if reduction == "none" else loss


def torch_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear`, and for a few vectors on a CPU, as in generating, the matrix times their columns.

    Generating is little but reading all weights once per token. For one vector PyTorch calls a
    routine that, where this was measured, runs on one core and reads memory at less than half its
    speed; for two to eight, one that is slower still. The same product the other way round, W xᵀ,
    is neither, with at least two columns. Small matrices stay in the processor's cache, where there
    is nothing to gain. Compiled (`torch.compile`), one vector needs no such turn: product and sum
    become a single loop over the weights, at the memory's speed.
    """
    n = x.numel() // x.shape[-1]
    if not 1 <= n <= 8 or weight.numel() <= 100_000 or x.is_cuda or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    rows = x.reshape(n, -1)
    if n == 1 and torch.compiler.is_compiling():
        y = (weight * rows).sum(-1) if bias is None else (weight * rows).sum(-1) + bias
        return y.view(*x.shape[:-1], -1)
    columns = (torch.cat([rows, rows]) if n == 1 else rows).T
    y = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)
    return y[:, :n].T.contiguous().view(*x.shape[:-1], -1)


TORCH_OPS = Ops(
    attention=torch_attention,
    layer_norm=torch_layer_norm,
    rms_norm=torch_rms_norm,
    gelu_tanh=torch_gelu_tanh,
    swiglu=torch_swiglu,
    cross_entropy=torch_cross_entropy,
    linear=torch_linear,
)
