"""The output layer and its loss together, a slice of rows at a time: logits never stored whole.

    loss = Σ cross_entropy(x Wᵀ, t) / n        dx = g W,  dW = gᵀ x,  g = ∂loss/∂logits

With a vocabulary of 128k and 8k tokens the logits in bfloat16 are 2 GB, and their gradient as much.
A slice's logits are made, turned into their loss and, in the same buffer, their gradient, and used
up at once for dx and dW, which the backward pass then only has to scale (as in Liger, Hsu et al.
2024). The products are PyTorch's own; the loss is `kernels.cross_entropy`'s kernel.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.kernels import cross_entropy as rows
from minillm.kernels.dispatch import backend, power_of_two
from minillm.nn import losses


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, targets, options, scale, slice_rows):
        wanted = ctx.needs_input_grad[:2]
        dx = torch.empty_like(x) if wanted[0] else None
        dw = torch.zeros(weight.shape, dtype=torch.float32, device=x.device) if wanted[1] else None
        block = min(rows.BLOCK, power_of_two(len(weight)))
        loss = torch.zeros((), dtype=torch.float32, device=x.device)
        for part in (slice(i, i + slice_rows) for i in range(0, len(x), slice_rows)):
            logits, target = x[part] @ weight.T, targets[part]
            of_rows, z = rows.losses_of_rows(logits, target, options, block)
            loss += of_rows.sum()
            if not any(wanted):
                continue
            grad = scale.expand(len(target))
            g = rows.gradient_of_rows(logits, target, z, grad, logits, options, block)
            if dx is not None:
                torch.mm(g, weight, out=dx[part])
            if dw is not None:
                dw += g.T @ x[part]
        ctx.save_for_backward(dx, None if dw is None else dw.to(weight.dtype))
        return loss * scale

    @staticmethod
    def backward(ctx, grad):
        done = [None if saved is None else saved * grad for saved in ctx.saved_tensors]
        return *done, None, None, None, None


def linear_cross_entropy(
    x: Float[Tensor, "*n d"],
    weight: Float[Tensor, "v d"],
    targets: Int[Tensor, "*n"],
    *,
    ignore_index: int = -100,
    label_smoothing: float | int = 0.0,
    reduction: str = "mean",
    z_loss: float | int = 0.0,
    softcap: float | int = 0.0,
    slice_rows: int = 1024,
) -> Float[Tensor, ""]:
    """cross_entropy(x Wᵀ, targets) with at most `slice_rows` · v logits in memory at a time.

    `reduction` is "mean" over the targets that are not ignored, or "sum". Second derivatives are
    not available, since the first are made in the forward pass.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction {reduction!r}: choose mean or sum; rows are not kept apart")
    if type(slice_rows) is not int or slice_rows < 1:
        raise ValueError(f"slice_rows is {slice_rows!r}: give a whole number, at least 1")
    if x.shape[-1] != weight.shape[1] or x.shape[:-1] != targets.shape:
        raise ValueError(
            f"x {tuple(x.shape)} needs a weight (v, {x.shape[-1]}), got {tuple(weight.shape)}, and "
            f"targets {tuple(x.shape[:-1])}, got {tuple(targets.shape)}"
        )
    named = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    named |= {"reduction": reduction, "z_loss": z_loss, "softcap": softcap}
    if backend(x) == "torch":
        return rows.cross_entropy(x @ weight.T, targets, **named)
    flat = targets.reshape(-1)
    real = flat != ignore_index
    if not x.is_cuda and bool(((flat < 0) | (flat >= len(weight)))[real].any()):
        raise losses.out_of_range(targets, ignore_index, len(weight))
    scale = 1 / real.sum().float() if reduction == "mean" else torch.ones((), device=x.device)
    options = (ignore_index, float(label_smoothing), float(z_loss), float(softcap))
    x = x.reshape(-1, x.shape[-1])
    return _LinearCrossEntropy.apply(x, weight, flat, options, scale, slice_rows)
