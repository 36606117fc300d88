"""Matrix products with an epilogue: act(x Wᵀ + b) written once, forward and backward.

    z = x Wᵀ + b    y = σ(z)        dz = dy ⊙ σ′(z)    dx = dz W    dW = dzᵀ x    db = Σ rows dz

A program makes one tile of the output and walks along the inner dimension. Tiles that share rows of
x or of W are made close to each other in time, `GROUP` rows of tiles at once, so that what they
share is still in the second-level cache.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.kernels.activations import activate
from minillm.kernels.dispatch import backend, jit, tl
from minillm.nn import ffn

KINDS = {None: -1, "silu": 0, "gelu": 1, "gelu_tanh": 2}
_REFERENCE = {
    None: lambda x: x,
    "silu": ffn.silu,
    "gelu": ffn.gelu_exact,
    "gelu_tanh": ffn.gelu_tanh,
}


@jit
def _product(
    a_ptr, b_ptr, bias_ptr, c_ptr, z_ptr, m, n, k, am, ak, bn, bk,
    BIAS: tl.constexpr, KIND: tl.constexpr, KEEP: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """c = act(a bᵀ + bias) for a (m, k) and b (n, k) of any strides; z before the activation."""
    tiles_m, tiles_n, number = tl.cdiv(m, M), tl.cdiv(n, N), tl.program_id(0)
    group = number // (GROUP * tiles_n)
    height = tl.minimum(tiles_m - group * GROUP, GROUP)
    rows = (group * GROUP + number % (GROUP * tiles_n) % height) * M + tl.arange(0, M)
    columns = number % (GROUP * tiles_n) // height * N + tl.arange(0, N)
    a_at = a_ptr + rows.to(tl.int64)[:, None] * am
    b_at = b_ptr + columns.to(tl.int64)[:, None] * bn
    acc = tl.zeros([M, N], tl.float32)
    for first in range(0, k, K):
        inner = first + tl.arange(0, K)
        a = tl.load(a_at + inner[None] * ak, (rows < m)[:, None] & (inner < k)[None], 0.0)
        b = tl.load(b_at + inner[None] * bk, (columns < n)[:, None] & (inner < k)[None], 0.0)
        acc += tl.dot(a, tl.trans(b), input_precision="ieee")
    if BIAS:
        acc += tl.load(bias_ptr + columns, columns < n, 0.0).to(tl.float32)[None]
    at = rows.to(tl.int64)[:, None] * n + columns[None]
    inside = (rows < m)[:, None] & (columns < n)[None]
    if KEEP:
        tl.store(z_ptr + at, acc, inside)
    if KIND >= 0:
        acc, _ = activate(acc, KIND)
    tl.store(c_ptr + at, acc, inside)


@jit
def _slope(z_ptr, dy_ptr, dz_ptr, n, KIND: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(z_ptr + at, at < n, 0.0).to(tl.float32)
    _, slope = activate(z, KIND)
    tl.store(dz_ptr + at, tl.load(dy_ptr + at, at < n, 0.0).to(tl.float32) * slope, at < n)


def product(
    a: Float[Tensor, "m k"],
    b: Float[Tensor, "n k"],
    bias: Float[Tensor, " n"] | None = None,
    *,
    kind: int = -1,
    z: Tensor | None = None,
    tile: tuple[int, int, int] | None = None,
) -> Float[Tensor, "m n"]:
    """a bᵀ by the kernel, plus the epilogue; views such as `w.T` cost no copy."""
    (m, k), n = a.shape, b.shape[0]
    c = torch.empty(m, n, dtype=a.dtype, device=a.device)
    M, N, K = tile or ((128, 128, 64) if a.dtype != torch.float32 else (32, 32, 32))
    if c.numel():
        _product[(-(-m // M) * -(-n // N),)](
            a, b, a if bias is None else bias, c, c if z is None else z, m, n, k,
            *a.stride(), *b.stride(), BIAS=bias is not None, KIND=kind, KEEP=z is not None,
            M=M, N=N, K=K, GROUP=8, num_warps=8 if M * N > 4096 else 4, num_stages=3,
        )  # fmt: skip
    return c


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, kind, tile):
        ctx.kind, ctx.tile, ctx.biased = kind, tile, bias is not None
        keep = kind >= 0 and any(ctx.needs_input_grad)
        z = torch.empty(len(x), len(weight), dtype=x.dtype, device=x.device) if keep else None
        y = product(x, weight, bias, kind=kind, z=z, tile=tile)
        ctx.save_for_backward(x, weight, z)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, z = ctx.saved_tensors
        dz = dy.contiguous()
        if z is not None:
            dz = torch.empty_like(z)
            if n := z.numel():
                _slope[(-(-n // 1024),)](z, dy.contiguous(), dz, n, KIND=ctx.kind, BLOCK=1024)
        dx = product(dz, weight.T, tile=ctx.tile) if ctx.needs_input_grad[0] else None
        dw = product(dz.T, x.T, tile=ctx.tile) if ctx.needs_input_grad[1] else None
        db = dz.float().sum(0).to(dz.dtype) if ctx.biased else None
        return dx, dw, db, None, None


def linear(
    x: Float[Tensor, "*n d"],
    weight: Float[Tensor, "o d"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    activation: str | None = None,
    tile: tuple[int, int, int] | None = None,
) -> Float[Tensor, "*n o"]:
    """σ(x Wᵀ + b) with σ one of None, "silu", "gelu", "gelu_tanh", in one kernel."""
    if activation not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise ValueError(f"activation {activation!r} is unknown; choose from {known}")
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x {tuple(x.shape)} and weight {tuple(weight.shape)} differ in width")
    if backend(x, dot=True) == "torch":
        return _REFERENCE[activation](torch.nn.functional.linear(x, weight, bias))
    flat = x.reshape(-1, x.shape[-1])
    y = _Linear.apply(flat, weight, bias, KINDS[activation], tile)
    return y.view(*x.shape[:-1], -1)
