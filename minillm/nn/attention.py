"""Attention (Vaswani et al. 2017): weights, masks, the multi-head layer, what a cache must offer.

A mask is boolean and True means "this query may look at this key". Axes: `b` batch, `t` queries,
`s` keys, `h` query heads, `g` key-value heads, `p` head size, `d` model width.
"""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.linear import Linear, check_dropout, check_sizes, linear


@runtime_checkable
class LayerCache(Protocol):
    """The keys and values that one layer has seen so far."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values `(b, g, t, p)`; return old and new ones together, `(b, g, s, p)`."""
        ...


@runtime_checkable
class Cache(Protocol):
    """One `LayerCache` per layer; `length` counts the positions stored before a forward pass.

    Two members are optional: `n_layers` lets a model see that the cache is another's, and
    `rollback(length)` lets it undo a pass that failed half-way.
    """

    length: int

    def __getitem__(self, layer: int) -> LayerCache:
        """Return the cache of one layer."""
        ...


def causal_mask(
    t: int, s: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "t s"]:
    """True where query i of t may see key j of s: j ≤ s - t + i.

    The mask is aligned to the bottom right: the last query sees every key. With a cache, t new
    queries meet s ≥ t keys, and the oldest s - t keys are visible to all of them.
    """
    s = t if s is None else s
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)


def padding_mask(attention_mask: Bool[Tensor, "b s"]) -> Bool[Tensor, "b 1 1 s"]:
    """Turn one flag per key, "a real token is here", into a mask that hides the other keys."""
    if attention_mask.dtype != torch.bool or attention_mask.ndim != 2:
        raise ValueError(
            f"attention_mask must be boolean with shape (batch, keys), got {attention_mask.dtype} "
            f"{tuple(attention_mask.shape)}; write `mask.bool()` for a mask of zeros and ones"
        )
    return attention_mask[:, None, None, :]


def check_qkv(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None = None
) -> None:
    """Raise ValueError when queries, keys, values, mask and bias do not fit together."""
    if q.ndim != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            "need q (batch, heads, t, p) and k, v (batch, kv heads, s, p), equal batch and p; "
            f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        )
    one_type = q.dtype == k.dtype == v.dtype and q.dtype.is_floating_point
    if not one_type and not torch.is_autocast_enabled(q.device.type):
        raise ValueError(
            f"q, k, v must be of one floating-point type, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"{q.shape[1]} query heads cannot share {k.shape[1]} key-value heads evenly; "
            "choose n_kv_heads that divides n_heads"
        )
    target = (*q.shape[:3], k.shape[2])
    if bias is not None and not _broadcasts(bias, target):
        raise ValueError(f"bias {tuple(bias.shape)} does not broadcast to (b, h, t, s) = {target}")
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise ValueError(f"mask is a {type(mask).__name__}: write torch.tensor(mask)")
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be boolean (True = may attend), got {mask.dtype}; write `mask.bool()` for "
            "zeros and ones, `mask == 0` for an additive mask of zeros and -inf"
        )
    if not _broadcasts(mask, target):
        raise ValueError(f"mask {tuple(mask.shape)} does not broadcast to (b, h, t, s) = {target}")


def _broadcasts(x: Tensor, target: tuple[int, ...]) -> bool:
    """Whether `x` fits `target` as it is or by repeating axes of length 1."""
    ends = zip(x.shape[::-1], target[::-1], strict=False)
    return x.ndim <= len(target) and all(a == 1 or a == b for a, b in ends)


def attention_weights(
    q: Float[Tensor, "b h t p"],
    k: Float[Tensor, "b g s p"],
    mask: Bool[Tensor, "*#bh #t s"] | None = None,
    *,
    bias: Float[Tensor, "*#bh #t #s"] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "b h t s"]:
    """softmax(q kᵀ · scale + bias) over the keys, `scale` = 1/√p (Vaswani et al. 2017, eq. 1).

    Keys where `mask` is False get weight 0; `causal` hides later keys as `causal_mask` does. Query
    head i uses key head i // (h/g). A query that may see no key at all gets weights 0, not NaN.
    """
    check_qkv(q, k, k, mask, bias)
    h, t, s = q.shape[1], q.shape[2], k.shape[2]
    k = k.repeat_interleave(h // k.shape[1], dim=1)
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[3]) if scale is None else scale)
    scores = scores if bias is None else scores + bias
    if causal and (t > 1 or s < t):  # a single query is the last one: it sees every key
        allowed = causal_mask(t, s, device=q.device)
        mask = allowed if mask is None else mask & allowed
    if mask is None:
        return scores.softmax(dim=-1)
    # the lowest finite number, not -inf: exp gives 0 just the same, and an empty row stays finite
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~mask, 0.0)


def scaled_dot_product_attention(
    q: Float[Tensor, "b h t p"],
    k: Float[Tensor, "b g s p"],
    v: Float[Tensor, "b g s p"],
    mask: Bool[Tensor, "*#bh #t s"] | None = None,
    *,
    bias: Float[Tensor, "*#bh #t #s"] | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h t p"]:
    """softmax(q kᵀ/√p) v: each query's weighted mean of the values (Vaswani et al. 2017, eq. 1).

    With g < h key-value heads, each serves h/g neighboring query heads (grouped-query attention).
    `scale` takes the place of 1/√p; `bias` is added to the scaled scores (T5, ALiBi). `dropout`
    zeroes weights at random and scales the rest up. A query with no visible key gives 0.
    """
    check_qkv(q, k, v, mask, bias)
    weights = attention_weights(q, k, mask, bias=bias, causal=causal, scale=scale)
    if dropout > 0.0:
        weights = F.dropout(weights, dropout)
    return weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)


class MultiHeadAttention(nn.Module):
    """Concat(head₁ … headₕ) Wᴼ, headᵢ = Attention(x Wᵢ^Q, m Wᵢ^K, m Wᵢ^V) (Vaswani et al., 3.2.2).

    m is x itself, or another sequence in cross-attention. `output_bias` is as `bias` unless given
    (Qwen2 has biases on queries, keys and values only). `n_kv_heads` = 1 is multi-query
    attention (Shazeer 2019), 1 < n_kv_heads < n_heads grouped-query (Ainslie et al. 2023).
    `dropout` acts on the weights while training. `query_norm` and `key_norm` act on each head's
    vectors, then `rotary(vectors, positions)` turns them; cached keys are stored after both.
    `attention` is the operation that does the work: any function with the signature of
    `scaled_dot_product_attention` (its `bias` is handed on only where there is one).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        bias: bool = True,
        output_bias: bool | None = None,
        dropout: float = 0.0,
        query_norm: nn.Module | None = None,
        key_norm: nn.Module | None = None,
        rotary: Callable[[Tensor, Tensor], Tensor] | None = None,
        attention: Callable[..., Tensor] = scaled_dot_product_attention,
        linear: Callable[..., Tensor] = linear,
    ) -> None:
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        check_sizes(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
        check_dropout(dropout)
        if d_head is None and d_model % n_heads:
            raise ValueError(
                f"d_model {d_model} is not divisible by n_heads {n_heads}; "
                "change one of them or give d_head"
            )
        if n_heads % n_kv_heads:
            raise ValueError(f"n_kv_heads {n_kv_heads} must divide n_heads {n_heads}")
        self.d_head = d_model // n_heads if d_head is None else d_head
        check_sizes(d_head=self.d_head)
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.dropout, self.attention = dropout, attention
        self.query_norm, self.key_norm, self.rotary = query_norm, key_norm, rotary
        self.query = Linear(d_model, n_heads * self.d_head, bias=bias, op=linear)
        self.key = Linear(d_model, n_kv_heads * self.d_head, bias=bias, op=linear)
        self.value = Linear(d_model, n_kv_heads * self.d_head, bias=bias, op=linear)
        output_bias = bias if output_bias is None else output_bias
        self.output = Linear(n_heads * self.d_head, d_model, bias=output_bias, op=linear)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b m d"] | tuple[Tensor, Tensor] | None = None,
        *,
        mask: Bool[Tensor, "*#bh #t s"] | None = None,
        bias: Float[Tensor, "*#bh #t #s"] | None = None,
        causal: bool = False,
        positions: Int[Tensor, "#b *two t"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Attend from `x` to itself, or to `memory` when given (cross-attention).

        `memory` is a sequence of vectors, or the keys and values that `remember` made of one.
        With a `cache`, the keys and values of `x` join it, and `x` attends to all it then holds.
        `positions` are those of `x`, for a rotary layer; 0, 1, 2, … when left out.
        """
        self._check(x, memory, cache)
        q = self._split(self.query(x))
        q = q if self.query_norm is None else self.query_norm(q)
        if isinstance(memory, tuple):
            k, v = memory
        else:
            k, v = self.remember(x if memory is None else memory)
        if self.rotary is not None:
            q, k = self._rotate(q, k, positions, cache)
        if cache is not None:
            k, v = cache.append(k, v)
        dropout = self.dropout if self.training else 0.0
        extra = {} if bias is None else {"bias": bias}
        out = self.attention(q, k, v, mask, causal=causal, dropout=dropout, **extra)
        b, _, t, _ = out.shape
        return self.output(out.transpose(1, 2).reshape(b, t, -1))

    def remember(
        self, memory: Float[Tensor, "b s d"]
    ) -> tuple[Float[Tensor, "b g s p"], Float[Tensor, "b g s p"]]:
        """Keys and values of `memory`: they can be made once, and serve all queries to come."""
        k, v = self._split(self.key(memory)), self._split(self.value(memory))
        return k if self.key_norm is None else self.key_norm(k), v

    def _check(self, x: Tensor, memory: Tensor | tuple | None, cache: LayerCache | None) -> None:
        if memory is not None and cache is not None:
            raise ValueError("memory does not grow while decoding: give memory or cache, not both")
        if memory is not None and self.rotary is not None:
            raise ValueError("a memory has positions of its own: cross-attention takes no rotary")
        for name, tensor in (("x", x), ("memory", memory if isinstance(memory, Tensor) else x)):
            if tensor.ndim != 3 or tensor.shape[2] != self.query.in_features:
                raise ValueError(
                    f"{name} must be (batch, length, {self.query.in_features}), "
                    f"got {tuple(tensor.shape)}"
                )

    def _rotate(
        self, q: Tensor, k: Tensor, positions: Tensor | None, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor]:
        """Turn queries and new keys by their positions."""
        if positions is None and cache is not None:
            raise ValueError("a rotary layer with a cache needs `positions`: those of the new x")
        if positions is None:
            positions = torch.arange(q.shape[2], device=q.device)[None]
        return self.rotary(q, positions), self.rotary(k, positions)

    def _split(self, x: Tensor) -> Tensor:
        """Cut the last axis into heads: (b, t, h·p) → (b, h, t, p)."""
        b, t, _ = x.shape
        return x.view(b, t, -1, self.d_head).transpose(1, 2)
