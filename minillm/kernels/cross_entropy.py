"""Cross-entropy over a vocabulary, forward and backward, without storing probabilities.

    z = log Σ exp(s)    loss = z − (1 − ε) s_t − ε mean(s) + ζ z²    with s = x, or c tanh(x/c)
    ds = p (1 + 2 ζ z) − (1 − ε) [j = t] − ε/V,  p = exp(s − z)      dx = ds (1 − (s/c)²)

t is the target, ε label smoothing, ζ the z-loss that keeps z near 0 (PaLM, Chowdhery et al. 2022,
5), c a soft cap (Gemma 2). The forward pass reads the logits once and keeps one number a row, z;
the backward pass reads them again and writes the gradient. Targets that are ignored cost nothing.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, power_of_two, tl, warps
from minillm.nn import losses

BLOCK = 8192  # logits of a row read at a time


def cross_entropy_reference(
    logits: Float[Tensor, "*n v"],
    targets: Int[Tensor, "*n"],
    *,
    ignore_index: int = -100,
    label_smoothing: float | int = 0.0,
    z_loss: float | int = 0.0,
    softcap: float | int = 0.0,
) -> Float[Tensor, "*n"]:
    """The loss of every row by the formula above, 0 where the target is ignored."""
    s = logits if not softcap else softcap * torch.tanh(logits / softcap)
    z = s.logsumexp(-1)
    chosen = s.gather(-1, targets.clamp(min=0)[..., None].long())[..., 0]
    loss = z - (1 - label_smoothing) * chosen - label_smoothing * s.mean(-1) + z_loss * z * z
    return loss.masked_fill(targets == ignore_index, 0.0)


@jit
def _capped(x, cap, CAP: tl.constexpr):
    return cap * (2 * tl.sigmoid(2 * x / cap) - 1) if CAP else x  # tanh u = 2 sigmoid(2u) − 1


@jit
def _forward(
    x_ptr, target_ptr, loss_ptr, z_ptr, stride, v, ignored, smooth, zeta, cap,
    CAP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(target_ptr + row)
    if target == ignored:
        tl.store(loss_ptr + row, 0.0)
        tl.store(z_ptr + row, 0.0)
        return
    lane = tl.arange(0, BLOCK)
    high = tl.full([BLOCK], -3.4e38, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    plain = tl.zeros([BLOCK], tl.float32)
    for first in range(0, v, BLOCK):
        inside = first + lane < v
        x = tl.load(x_ptr + row * stride + first + lane, inside, 0.0).to(tl.float32)
        x = _capped(x, cap, CAP)
        plain += tl.where(inside, x, 0.0)
        x = tl.where(inside, x, -float("inf"))
        higher = tl.maximum(high, x)
        total = total * tl.exp(high - higher) + tl.exp(x - higher)
        high = higher
    top = tl.max(high, 0)
    z = top + tl.log(tl.sum(total * tl.exp(high - top), 0))
    valid = (target >= 0) & (target < v)  # a wrong target on a GPU gives NaN, not a read outside
    chosen = tl.load(x_ptr + row * stride + target, valid, float("nan")).to(tl.float32)
    chosen = _capped(chosen, cap, CAP)
    loss = z - (1 - smooth) * chosen + zeta * z * z
    if smooth != 0:
        loss -= smooth * tl.sum(plain, 0) / v
    tl.store(loss_ptr + row, loss)
    tl.store(z_ptr + row, z)


@jit
def _backward(
    x_ptr, target_ptr, z_ptr, grad_ptr, dx_ptr, stride, grad_stride, v, ignored, smooth, zeta, cap,
    CAP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, target = column < v, tl.load(target_ptr + row)
    if target == ignored:
        tl.store(dx_ptr + row * stride + column, tl.zeros([BLOCK], tl.float32), inside)
        return
    z, grad = tl.load(z_ptr + row), tl.load(grad_ptr + row * grad_stride).to(tl.float32)
    x = tl.load(x_ptr + row * stride + column, inside, -float("inf")).to(tl.float32)
    s = _capped(x, cap, CAP)
    ds = tl.exp(s - z) * (1 + 2 * zeta * z) - smooth / v
    ds = tl.where(column == target, ds - (1 - smooth), ds)
    if CAP:
        ds *= 1 - (s / cap) * (s / cap)
    tl.store(dx_ptr + row * stride + column, ds * grad, inside)


def losses_of_rows(
    logits: Tensor, targets: Tensor, options: tuple, block: int
) -> tuple[Tensor, Tensor]:
    """Loss and z of every row of (n, v) logits; `options` are ignored, ε, ζ and cap."""
    (n, v), like = logits.shape, {"dtype": torch.float32, "device": logits.device}
    loss, z = torch.empty(n, **like), torch.empty(n, **like)
    if n:
        _forward[(n,)](
            logits, targets, loss, z, logits.stride(0), v, *options,
            CAP=bool(options[3]), BLOCK=block, num_warps=warps(block),
        )  # fmt: skip
    return loss, z


def gradient_of_rows(
    logits: Tensor,
    targets: Tensor,
    z: Tensor,
    grad: Tensor,
    out: Tensor,
    options: tuple,
    block: int,
) -> Tensor:
    """Write into `out` (which may be `logits`) the gradient, row i times grad[i]."""
    n, v = logits.shape
    if n:
        _backward[(n, -(-v // block))](
            logits, targets, z, grad, out, logits.stride(0), grad.stride(0), v, *options,
            CAP=bool(options[3]), BLOCK=block, num_warps=warps(block),
        )  # fmt: skip
    return out


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, options: tuple, block: int) -> Tensor:
        logits, targets = logits.contiguous(), targets.contiguous()
        loss, z = losses_of_rows(logits, targets, options, block)
        ctx.save_for_backward(logits, targets, z)
        ctx.options, ctx.block = options, block
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, z = ctx.saved_tensors
        out = torch.empty_like(logits)
        gradient_of_rows(logits, targets, z, grad, out, ctx.options, ctx.block)
        return out, None, None, None


def cross_entropy(
    logits: Float[Tensor, "*n v"],
    targets: Int[Tensor, "*n"],
    *,
    ignore_index: int = -100,
    label_smoothing: float | int = 0.0,
    reduction: str = "mean",
    z_loss: float | int = 0.0,
    softcap: float | int = 0.0,
    block: int = BLOCK,
) -> Float[Tensor, "..."]:
    """−log p(target), smoothed, capped and with a z-loss where asked; means are over real targets.

    `reduction` is "mean", "sum" or "none". Nothing but ignored targets has the mean NaN, as in
    PyTorch. Losses are float32. `block` is how many logits a program reads at a time. A target out
    of range is a ValueError on a CPU; on a GPU, which nobody waits for here, its loss is NaN.
    """
    losses.check_loss(logits, targets, label_smoothing)
    options = (ignore_index, float(label_smoothing), float(z_loss), float(softcap))
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction {reduction!r} is unknown; choose mean, sum or none")
    v, flat = logits.shape[-1], targets.reshape(-1)
    real = flat != ignore_index
    if not logits.is_cuda and bool(((flat < 0) | (flat >= v))[real].any()):
        raise losses.out_of_range(targets, ignore_index, v)
    if backend(logits) == "torch":
        named = dict(zip(("label_smoothing", "z_loss", "softcap"), options[1:], strict=True))
        loss = cross_entropy_reference(logits, targets, ignore_index=ignore_index, **named)
        loss = loss.reshape(-1)
    else:
        block = min(block, power_of_two(v))
        loss = _CrossEntropy.apply(logits.reshape(-1, v), flat, options, block)
    if reduction == "none":
        return loss.view(targets.shape)
    return loss.sum() if reduction == "sum" else loss.sum() / real.sum()


def selective_logprob(
    logits: Float[Tensor, "*n v"], ids: Int[Tensor, "*n"], *, ignore_index: int = -100
) -> Float[Tensor, "*n"]:
    """log p(id) for the chosen id of every row, 0 where ignored: what DPO and GRPO sum up."""
    return -cross_entropy(logits, ids, ignore_index=ignore_index, reduction="none")
