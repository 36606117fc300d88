"""RMSNorm, forward and backward, with the residual's addition in the same pass if wanted.

    h = x + residual    r = 1/√(mean(h²) + ε)    x̂ = h r    y = x̂ ⊙ w
    dh = r (w ⊙ dy − x̂ · mean(x̂ ⊙ w ⊙ dy)) + what flows into h itself    dw = Σ rows dy ⊙ x̂

The backward pass also sums over rows, which other programs have. Here a fixed number of programs
walk over the rows, each with a dw of its own in registers; the few partial sums are added at the
end, always in the same order, so two runs agree to the bit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, n_programs, power_of_two, tl, warps
from minillm.nn.ops import torch_rms_norm

LONGEST = 32_768  # numbers of a row that are held in registers at once


@jit
def _forward(
    x_ptr, residual_ptr, weight_ptr, y_ptr, h_ptr, scale_ptr, d, eps,
    ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < d
    h = tl.load(x_ptr + row * d + columns, inside, 0.0).to(tl.float32)
    if ADD:
        h += tl.load(residual_ptr + row * d + columns, inside, 0.0).to(tl.float32)
        tl.store(h_ptr + row * d + columns, h, inside)
    scale = 1 / tl.sqrt(tl.sum(h * h, 0) / d + eps)
    weight = tl.load(weight_ptr + columns, inside, 0.0).to(tl.float32)
    tl.store(y_ptr + row * d + columns, h * scale * weight, inside)
    tl.store(scale_ptr + row, scale)


@jit
def _backward(
    h_ptr, weight_ptr, scale_ptr, dy_ptr, dh_ptr, dx_ptr, partial_ptr, n, d,
    ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < d
    weight = tl.load(weight_ptr + columns, inside, 0.0).to(tl.float32)
    dw = tl.zeros([BLOCK], tl.float32)
    at = program.to(tl.int64) * d + columns  # 64 bits: a large batch has more than 2³¹ numbers
    for row in range(program, n, tl.num_programs(0)):
        scale = tl.load(scale_ptr + row)
        normal = tl.load(h_ptr + at, inside, 0.0).to(tl.float32) * scale
        dy = tl.load(dy_ptr + at, inside, 0.0).to(tl.float32)
        dw += dy * normal
        dy *= weight
        dx = scale * (dy - normal * (tl.sum(normal * dy, 0) / d))
        if ADD:
            dx += tl.load(dh_ptr + at, inside, 0.0).to(tl.float32)
        tl.store(dx_ptr + at, dx, inside)
        at += tl.num_programs(0) * d
    tl.store(partial_ptr + program.to(tl.int64) * d + columns, dw, inside)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None):
        x, weight = x.contiguous(), weight.contiguous()
        add = residual is not None
        residual = residual.contiguous() if add else x
        d, y = x.shape[-1], torch.empty_like(x)
        h = torch.empty_like(x) if add else x
        n, block = x.numel() // d, power_of_two(d)
        scale = torch.empty(n, dtype=torch.float32, device=x.device)
        if n:
            _forward[(n,)](
                x, residual, weight, y, h, scale, d, eps, ADD=add, BLOCK=block,
                num_warps=warps(block),
            )  # fmt: skip
        ctx.save_for_backward(h, weight, scale)
        ctx.add = add
        return (y, h) if add else y

    @staticmethod
    def backward(ctx, dy: Tensor, dh: Tensor | None = None):
        h, weight, scale = ctx.saved_tensors
        d, dy = h.shape[-1], dy.contiguous()
        dh = dh.contiguous() if ctx.add else dy
        n, block, dx = h.numel() // d, power_of_two(d), torch.empty_like(h)
        programs = n_programs(h.device, max(n, 1))
        partial = torch.zeros(programs, d, dtype=torch.float32, device=h.device)
        if n:
            _backward[(programs,)](
                h, weight, scale, dy, dh, dx, partial, n, d, ADD=ctx.add, BLOCK=block,
                num_warps=warps(block),
            )  # fmt: skip
        return dx, partial.sum(0).to(weight.dtype), None, dx if ctx.add else None


def rms_norm(
    x: Float[Tensor, "*n d"],
    weight: Float[Tensor, " d"] | None = None,
    eps: float = 1e-6,
    residual: Float[Tensor, "*n d"] | None = None,
) -> Float[Tensor, "*n d"] | tuple[Float[Tensor, "*n d"], Float[Tensor, "*n d"]]:
    """x / √(mean(x²) + ε) ⊙ w over the last axis (Zhang and Sennrich 2019).

    With a `residual`, (norm(x + residual), x + residual): what a pre-norm block needs next, and
    what it passes on. Rows of more than 32,768 numbers, which no program can hold, go to PyTorch.
    """
    beyond = f"rows of {x.shape[-1]} numbers" if x.shape[-1] > LONGEST else ""
    if backend(x, beyond=beyond) == "torch":
        h = x if residual is None else x + residual
        y = torch_rms_norm(h, weight, eps)
        return y if residual is None else (y, h)
    weight = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device) if weight is None else weight
    return _RMSNorm.apply(x, weight, eps, residual)
