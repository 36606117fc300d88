"""LayerNorm, forward and backward: as RMSNorm's kernel, with a mean and a bias.

r = 1/√(var(x) + ε)    x̂ = (x − mean(x)) r    y = x̂ ⊙ w + b
dx = r (w ⊙ dy − mean(w ⊙ dy) − x̂ · mean(x̂ ⊙ w ⊙ dy))    dw = Σ rows dy ⊙ x̂    db = Σ rows dy
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, n_programs, power_of_two, tl, warps
from minillm.nn.ops import torch_layer_norm

LONGEST = 32_768  # numbers of a row that are held in registers at once


@jit
def _forward(x_ptr, weight_ptr, bias_ptr, y_ptr, mean_ptr, scale_ptr, d, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < d
    x = tl.load(x_ptr + row * d + columns, inside, 0.0).to(tl.float32)
    mean = tl.sum(x, 0) / d
    centered = tl.where(inside, x - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centered * centered, 0) / d + eps)
    weight = tl.load(weight_ptr + columns, inside, 0.0).to(tl.float32)
    bias = tl.load(bias_ptr + columns, inside, 0.0).to(tl.float32)
    tl.store(y_ptr + row * d + columns, centered * scale * weight + bias, inside)
    tl.store(mean_ptr + row, mean)
    tl.store(scale_ptr + row, scale)


@jit
def _backward(
    x_ptr, weight_ptr, mean_ptr, scale_ptr, dy_ptr, dx_ptr, partial_ptr, n, d, BLOCK: tl.constexpr
):
    program, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < d
    weight = tl.load(weight_ptr + columns, inside, 0.0).to(tl.float32)
    dw = tl.zeros([BLOCK], tl.float32)
    db = tl.zeros([BLOCK], tl.float32)
    at = program.to(tl.int64) * d + columns  # 64 bits: a large batch has more than 2³¹ numbers
    for row in range(program, n, tl.num_programs(0)):
        scale = tl.load(scale_ptr + row)
        x = tl.load(x_ptr + at, inside, 0.0).to(tl.float32)
        normal = tl.where(inside, (x - tl.load(mean_ptr + row)) * scale, 0.0)
        dy = tl.load(dy_ptr + at, inside, 0.0).to(tl.float32)
        dw += dy * normal
        db += dy
        dy *= weight
        dx = scale * (dy - tl.sum(dy, 0) / d - normal * (tl.sum(normal * dy, 0) / d))
        tl.store(dx_ptr + at, dx, inside)
        at += tl.num_programs(0) * d
    tl.store(partial_ptr + program.to(tl.int64) * 2 * d + columns, dw, inside)
    tl.store(partial_ptr + (program.to(tl.int64) * 2 + 1) * d + columns, db, inside)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        d, y = x.shape[-1], torch.empty_like(x)
        n, block = x.numel() // d, power_of_two(d)
        mean, scale = torch.empty(2, n, dtype=torch.float32, device=x.device)
        if n:
            _forward[(n,)](
                x, weight, bias, y, mean, scale, d, eps, BLOCK=block, num_warps=warps(block)
            )
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.bias_dtype = bias.dtype
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        d, dy, dx = x.shape[-1], dy.contiguous(), torch.empty_like(x)
        n, block = x.numel() // d, power_of_two(d)
        programs = n_programs(x.device, max(n, 1))
        partial = torch.zeros(programs, 2, d, dtype=torch.float32, device=x.device)
        if n:
            _backward[(programs,)](
                x, weight, mean, scale, dy, dx, partial, n, d, BLOCK=block, num_warps=warps(block)
            )
        dw, db = partial.sum(0)
        return dx, dw.to(weight.dtype), db.to(ctx.bias_dtype), None


def layer_norm(
    x: Float[Tensor, "*n d"],
    weight: Float[Tensor, " d"] | None = None,
    bias: Float[Tensor, " d"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*n d"]:
    """(x − mean) / √(var + ε) ⊙ w + b over the last axis (Ba, Kiros and Hinton 2016).

    Rows of more than 32,768 numbers, which no program can hold, go to PyTorch.
    """
    beyond = f"rows of {x.shape[-1]} numbers" if x.shape[-1] > LONGEST else ""
    if backend(x, beyond=beyond) == "torch":
        return torch_layer_norm(x, weight, bias, eps)
    like = {"dtype": x.dtype, "device": x.device}
    weight = torch.ones(x.shape[-1], **like) if weight is None else weight
    bias = torch.zeros(x.shape[-1], **like) if bias is None else bias
    return _LayerNorm.apply(x, weight, bias, eps)
