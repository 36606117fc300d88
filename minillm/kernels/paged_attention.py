"""Decoding from a paged cache: one query a sequence, keys and values in pages anywhere in memory.

    key j of a sequence lies on page table[j // size], row j mod size
    split i of the keys gives  m_i = max S,  l_i = Σ 2^(S − m_i),  a_i = Σ 2^(S − m_i) v
    out = Σ 2^(m_i − m) a_i / Σ 2^(m_i − m) l_i,  m = max m_i

One query cannot fill a GPU. A long sequence is therefore cut into splits that other processors work
on, and a second kernel joins them (Flash-Decoding; Dao et al. 2023). Heads that share keys and
values are one tile, so that every key is read once for all of them (PagedAttention, Kwon et al.
2023, reads once a head).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.kernels.dispatch import backend, jit, power_of_two, tl
from minillm.kernels.flash_attention import LOG2E
from minillm.nn.attention import scaled_dot_product_attention


def paged_decode_reference(
    q: Float[Tensor, "b h p"],
    k_pages: Float[Tensor, "n size g p"],
    v_pages: Float[Tensor, "n size g p"],
    table: Int[Tensor, "b most"],
    lengths: Int[Tensor, " b"],
    scale: float | None = None,
) -> Float[Tensor, "b h p"]:
    """Gather every sequence's pages, then attend."""
    rows = []
    for i, length in enumerate(lengths.tolist()):
        k, v = (
            x[table[i]].flatten(0, 1)[:length].transpose(0, 1)[None] for x in (k_pages, v_pages)
        )
        rows.append(scaled_dot_product_attention(q[i : i + 1, :, None], k, v, scale=scale)[:, :, 0])
    return torch.cat(rows)


@jit
def _split(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, acc_ptr, high_ptr, total_ptr, g, share, p, most,
    size, part, scale, splits, P: tl.constexpr, R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    batch, group, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths_ptr + batch).to(tl.int32)
    heads, width = tl.arange(0, R), tl.arange(0, P)
    inside = (heads < share)[:, None] & (width < p)[None]
    q_at = ((batch * g + group) * share + heads)[:, None] * p + width[None]
    q = tl.load(q_ptr + q_at, inside, 0.0)
    high = tl.full([R], -float("inf"), tl.float32)
    total = tl.zeros([R], tl.float32)
    acc = tl.zeros([R, P], tl.float32)
    for first in range(split * part, tl.minimum(length, split * part + part), N):
        keys = first + tl.arange(0, N)
        real = keys < tl.minimum(length, split * part + part)
        page = tl.load(table_ptr + batch * most + keys // size, real, 0).to(tl.int64)
        at = ((page * size + keys % size) * g + group)[:, None] * p + width[None]
        there = real[:, None] & (width < p)[None]
        k, v = tl.load(k_ptr + at, there, 0.0), tl.load(v_ptr + at, there, 0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(real[None], scores, -float("inf"))
        higher = tl.maximum(high, tl.max(scores, 1))  # finite: the first key of a round is real
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(high - higher)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        high = higher
    row = ((batch * g + group) * share + heads) * splits + split
    tl.store(high_ptr + row, high, heads < share)
    tl.store(total_ptr + row, total, heads < share)
    tl.store(acc_ptr + row[:, None] * p + width[None], acc, inside)


@jit
def _join(acc_ptr, high_ptr, total_ptr, out_ptr, splits, p, S: tl.constexpr, P: tl.constexpr):
    row, split, width = tl.program_id(0).to(tl.int64), tl.arange(0, S), tl.arange(0, P)
    high = tl.load(high_ptr + row * splits + split, split < splits, -float("inf"))
    top = tl.max(high, 0)
    top = tl.where(top == -float("inf"), 0.0, top)  # no key at all: 0, not NaN
    factor = tl.exp2(high - top)
    total = tl.sum(tl.load(total_ptr + row * splits + split, split < splits, 0.0) * factor, 0)
    at = (row * splits + split)[:, None] * p + width[None]
    acc = tl.load(acc_ptr + at, (split < splits)[:, None] & (width < p)[None], 0.0)
    out = tl.sum(acc * factor[:, None], 0) / tl.where(total == 0, 1.0, total)
    tl.store(out_ptr + row * p + width, out, width < p)


def paged_decode(
    q: Float[Tensor, "b h p"],
    k_pages: Float[Tensor, "n size g p"],
    v_pages: Float[Tensor, "n size g p"],
    table: Int[Tensor, "b most"],
    lengths: Int[Tensor, " b"],
    *,
    scale: float | None = None,
    splits: int = 8,
    block: int = 64,
) -> Float[Tensor, "b h p"]:
    """softmax(q kᵀ · scale) v over the first `lengths[i]` keys of sequence i; 0 where that is 0.

    `table[i]` lists the pages of sequence i in order; what follows the last one needed is not read.
    The keys are cut into `splits` parts, read `block` at a time. There is no gradient: this is for
    generating.
    """
    (b, h, p), (_, size, g, _) = q.shape, k_pages.shape
    if h % g or k_pages.shape != v_pages.shape or len(table) != b or len(lengths) != b:
        raise ValueError(
            f"q {tuple(q.shape)}, k_pages {tuple(k_pages.shape)}, v_pages {tuple(v_pages.shape)}, "
            f"table {tuple(table.shape)} and lengths {tuple(lengths.shape)} do not fit together"
        )
    if not q.is_cuda and int(lengths.max()) > table.shape[1] * size:
        raise ValueError(
            f"a length of {int(lengths.max())} needs more than {table.shape[1]} pages of {size}"
        )
    if backend(q, dot=True) == "torch":
        return paged_decode_reference(q, k_pages, v_pages, table, lengths, scale)
    scale = (p**-0.5 if scale is None else scale) * LOG2E
    part = -(-table.shape[1] * size // splits)
    like = {"dtype": torch.float32, "device": q.device}
    acc = torch.empty(b, h, splits, p, **like)
    high, total = torch.empty(2, b, h, splits, **like)
    P, out = max(power_of_two(p), 16), torch.empty_like(q, memory_format=torch.contiguous_format)
    pages = (x.contiguous() for x in (q, k_pages, v_pages, table, lengths))
    _split[(b, g, splits)](
        *pages, acc, high, total, g, h // g, p, table.shape[1], size, part, scale, splits,
        P=P, R=max(power_of_two(h // g), 16), N=block, num_warps=4,
    )  # fmt: skip
    _join[(b * h,)](acc, high, total, out, splits, p, S=power_of_two(splits), P=P)
    return out
