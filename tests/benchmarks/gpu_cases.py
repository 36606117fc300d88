"""What `gpu_kernels.py` times: for each kernel its rivals on the same inputs, and its work."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minillm.kernels import activations, rope
from minillm.kernels.cross_entropy import cross_entropy
from minillm.kernels.flash_attention import flash_attention
from minillm.kernels.grouped_mm import grouped_mm, grouped_mm_reference
from minillm.kernels.int4_matmul import int4_matmul, quantize_int4
from minillm.kernels.int8_matmul import int8_matmul, quantize_int8
from minillm.kernels.layer_norm import layer_norm
from minillm.kernels.linear_cross_entropy import linear_cross_entropy
from minillm.kernels.matmul import linear
from minillm.kernels.paged_attention import paged_decode, paged_decode_reference
from minillm.kernels.rms_norm import rms_norm
from minillm.kernels.softmax import softmax
from minillm.nn import ffn, rotary
from minillm.nn import rms_norm as rms_norm_reference
from minillm.nn.ops import torch_attention

Side = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One comparison: `sides` are called with `inputs`; the first is ours.

    `n_bytes` and `flops` are what the task needs at least; a backward pass has its own. Sides give
    the same numbers up to `tolerance` times the largest.
    """

    kernel: str
    setup: str
    inputs: tuple[Tensor, ...]
    sides: dict[str, Side]
    n_bytes: int = 0
    flops: int = 0
    backward_bytes: int = 0
    backward_flops: int = 0
    tolerance: float = 3e-2
    memory: bool = False


def rivals(ours: Side, eager: Side, **others: Side) -> dict[str, Side]:
    """Ours, PyTorch's operations one by one, the same compiled, and what else there is."""
    return {"minillm": ours, "eager": eager, "compile": torch.compile(eager), **others}


def memory_bound(scale: float, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Kernels that only move rows: softmax, norms, rotation, gates, cross-entropy."""
    make = partial(torch.randn, device=device, dtype=dtype)
    size = make(1).element_size()
    n, d = max(int(32768 * scale), 4), max(int(8192 * scale), 16)
    x, y, w, b = make(n, d), make(n, d), make(d), make(d)
    row = n * d * size
    setup = f"{n} × {d}"
    yield Case(
        "softmax", setup, (x,), rivals(softmax, partial(torch.softmax, dim=-1)),
        2 * row, backward_bytes=3 * row,
    )  # fmt: skip
    fused = {"torch": lambda x, w: F.rms_norm(x, x.shape[-1:], w, 1e-6)}
    yield Case(
        "rms_norm", setup, (x, w),
        rivals(rms_norm, rms_norm_reference, **fused, **liger("rms_norm")),
        2 * row, backward_bytes=3 * row,
    )  # fmt: skip
    yield Case(
        "add + rms_norm", setup, (x, w, y),
        rivals(lambda x, w, y: rms_norm(x, w, residual=y), _add_norm), 4 * row,
        backward_bytes=4 * row,
    )  # fmt: skip
    plain = lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b)  # noqa: E731
    yield Case(
        "layer_norm", setup, (x, w, b), rivals(layer_norm, plain), 2 * row, backward_bytes=3 * row
    )
    yield Case(
        "swiglu", setup, (x, y), rivals(activations.swiglu, ffn.swiglu), 3 * row,
        backward_bytes=5 * row,
    )  # fmt: skip
    heads, t, p = max(int(32 * scale), 1), max(int(8192 * scale), 8), 128
    q = make(4, heads, t, p)
    angle = torch.randn(1, t, p // 2, device=device)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    yield Case(
        "rope", f"4 × {heads} × {t} × {p}", (q,),
        rivals(partial(rope.rotate_halves, cos=cos, sin=sin),
               partial(rotary.rotate_halves, cos=cos, sin=sin)),
        2 * q.numel() * size, backward_bytes=2 * q.numel() * size,
    )  # fmt: skip
    yield from losses(scale, device, dtype)


def losses(scale: float, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Cross-entropy alone, and together with the output layer, time and memory."""
    n, v, d = max(int(8192 * scale), 4), max(int(128_256 * scale), 64), max(int(4096 * scale), 16)
    logits = torch.randn(n, v, device=device, dtype=dtype)
    targets = torch.randint(v, (n,), device=device)
    row = logits.numel() * logits.element_size()
    theirs = lambda x: F.cross_entropy(x.float(), targets)  # noqa: E731
    yield Case(
        "cross_entropy", f"{n} × {v}", (logits,),
        rivals(lambda x: cross_entropy(x, targets), theirs), row, backward_bytes=2 * row,
    )  # fmt: skip
    x = torch.randn(n, d, device=device, dtype=dtype)
    w = torch.randn(v, d, device=device, dtype=dtype) * d**-0.5
    both = lambda x, w: F.cross_entropy((x @ w.T).float(), targets)  # noqa: E731
    yield Case(
        "linear + cross_entropy", f"{n} × {d} × {v}", (x, w),
        rivals(lambda x, w: linear_cross_entropy(x, w, targets), both),
        flops=2 * n * d * v, backward_flops=4 * n * d * v, memory=True,
    )  # fmt: skip


def attention(scale: float, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """FlashAttention, causal, beside PyTorch's two kernels; FLOPs of the lower triangle alone."""
    for p in (64, 128):
        t = max(int(8192 * scale), 32)
        heads = max(int(2048 // p * scale), 1)
        q, k, v = (torch.randn(2, heads, t, p, device=device, dtype=dtype) for _ in range(3))
        flops = 4 * 2 * heads * t * t * p // 2
        sides = {"minillm": partial(flash_attention, causal=True)}
        sides |= (
            {name: partial(sdpa, kind) for name, kind in SDPA.items()}
            if device == "cuda"
            else {"torch": partial(torch_attention, causal=True)}
        )
        yield Case(
            "attention", f"2 × {heads} × {t} × {p}, causal", (q, k, v), sides, flops=flops,
            backward_flops=flops * 5 // 2,
        )  # fmt: skip


SDPA = {"sdpa_flash": SDPBackend.FLASH_ATTENTION, "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION}


def sdpa(kind: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's attention by one of its kernels."""
    with sdpa_kernel(kind):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def products(scale: float, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Matrix products: with an epilogue, one for each expert, with weights of 8 and 4 bits."""
    m = max(int(8192 * scale), 32)
    x = torch.randn(m, m, device=device, dtype=dtype)
    w = torch.randn(m, m, device=device, dtype=dtype) * m**-0.5
    b = torch.randn(m, device=device, dtype=dtype)
    yield Case(
        "linear + gelu", f"{m}³", (x, w, b),
        rivals(partial(linear, activation="gelu_tanh"),
               lambda x, w, b: F.gelu(F.linear(x, w, b), approximate="tanh")),
        flops=2 * m**3, backward_flops=4 * m**3,
    )  # fmt: skip
    experts, d = 8, max(int(4096 * scale), 32)
    counts = torch.full((experts,), m // experts, device=device)
    rows = torch.randn(m, d, device=device, dtype=dtype)
    weights = torch.randn(experts, d, d, device=device, dtype=dtype) * d**-0.5
    listed = partial(grouped_mm_reference, counts=counts.cpu())
    yield Case(
        "grouped_mm", f"{experts} experts, {m} × {d} × {d}", (rows, weights),
        {"minillm": lambda x, w: grouped_mm(x, w, counts), "eager": listed},
        flops=2 * m * d * d, backward_flops=4 * m * d * d,
    )  # fmt: skip
    wide = torch.randn(4 * d, d, device=device, dtype=dtype) * d**-0.5
    one = torch.randn(1, d, device=device, dtype=dtype)
    int8, int4 = quantize_int8(wide), quantize_int4(wide, 32)
    frozen = torch.no_grad()
    cublas = {"cublas": frozen(lambda x: x @ wide.T)}
    size = wide.numel()
    setup = f"1 × {d} × {4 * d}"
    ours = frozen(lambda x: int8_matmul(x, *int8))
    yield Case("int8_matmul", setup, (one,), {"minillm": ours, **cublas}, size, tolerance=0.1)
    ours = frozen(lambda x: int4_matmul(x, *int4))
    yield Case(
        "int4_matmul", setup, (one,), {"minillm": ours, **cublas}, size * 9 // 16, tolerance=0.5
    )


def decoding(scale: float, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """One token for many sequences from a paged cache."""
    b, h, g, p, size = 16, 32, 8, 128, 16
    length = max(int(8192 * scale), 48)
    per = -(-length // size)
    pages = (torch.randn(b * per, size, g, p, device=device, dtype=dtype) for _ in range(2))
    k, v = pages
    table = torch.randperm(b * per, device=device).view(b, per)
    lengths = torch.full((b,), length, device=device)
    q = torch.randn(b, h, p, device=device, dtype=dtype)
    frozen = torch.no_grad()
    sides = {
        "minillm": frozen(lambda q: paged_decode(q, k, v, table, lengths)),
        "gather": frozen(lambda q: paged_decode_reference(q, k, v, table, lengths.cpu())),
    }
    moved = 2 * b * length * g * p * k.element_size()
    yield Case("paged_decode", f"{b} × {h}/{g} heads × {length}", (q,), sides, moved)


def _add_norm(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    h = x + y
    return rms_norm_reference(h, w), h


def liger(name: str) -> dict[str, Side]:
    """Liger's kernel of this name, where the package is installed."""
    try:
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    except ImportError:
        return {}
    known = {"rms_norm": lambda x, w: LigerRMSNormFunction.apply(x, w, 1e-6)}
    return {"liger": known[name]}


GROUPS = {
    "memory": memory_bound,
    "attention": attention,
    "products": products,
    "decoding": decoding,
}
