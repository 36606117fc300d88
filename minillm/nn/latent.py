"""Multi-head latent attention, MLA (DeepSeek-V2, 2024, 2.1): keys and values from one small vector.

A token leaves behind a latent c of r numbers and one rotary key for all heads; heads make their
keys and values from c. Axes as in `nn.attention`; besides, `r` latent, `n` the head's part without
position, `o` its rotary part, `v` a head of the values.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.attention import LayerCache, scaled_dot_product_attention
from minillm.nn.linear import Linear, check_dropout, check_sizes, linear
from minillm.nn.norms import RMSNorm


def expanded_attention(
    q: Float[Tensor, "b h t n"],
    q_rotary: Float[Tensor, "b h t o"],
    latent: Float[Tensor, "b s r"],
    k_rotary: Float[Tensor, "b s o"],
    key: Float[Tensor, "h n r"],
    value: Float[Tensor, "h v r"],
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "b h t v"]:
    """Ordinary attention with kᵢ = [Wᵢᴷ c; k_rotary] and vᵢ = Wᵢⱽ c (DeepSeek-V2, eq. 9 to 19).

    Every head gets keys and values of its own for all s tokens: cheap per query, and right for
    training and prompts. Kernels want keys and values of one width, so both are padded with zeros.
    """
    k = einsum(latent, key, "b s r, h n r -> b h s n")
    v = einsum(latent, value, "b s r, h v r -> b h s v")
    k = torch.cat([k, k_rotary[:, None].expand(*k.shape[:3], -1)], dim=-1)
    q = torch.cat([q, q_rotary], dim=-1)
    width = max(q.shape[-1], v.shape[-1])
    q, k, padded = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    return attend(q, k, padded)[..., : v.shape[-1]]


def absorbed_attention(
    q: Float[Tensor, "b h t n"],
    q_rotary: Float[Tensor, "b h t o"],
    latent: Float[Tensor, "b s r"],
    k_rotary: Float[Tensor, "b s o"],
    key: Float[Tensor, "h n r"],
    value: Float[Tensor, "h v r"],
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "b h t v"]:
    """The same numbers without any key or value: qᵢ · Wᵢᴷ c = (Wᵢᴷᵀ qᵢ) · c (DeepSeek-V2, 2.1.2).

    The query moves to the latent's space and all heads share the one "key" [c; k_rotary], which is
    the "value" as well: multi-query attention. Its mean of c's goes through Wᵢⱽ afterwards. Per
    token of the past it reads r + o numbers, so it is the form for decoding.
    """
    q = einsum(q, key, "b h t n, h n r -> b h t r")
    memory = torch.cat([latent, k_rotary], dim=-1)[:, None]
    mixed = attend(torch.cat([q, q_rotary], dim=-1), memory, memory)[..., : latent.shape[-1]]
    return einsum(mixed, value, "b h t r, h v r -> b h t v")


def cheaper_attention(
    q: Tensor,
    q_rotary: Tensor,
    latent: Tensor,
    k_rotary: Tensor,
    key: Tensor,
    value: Tensor,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """`expanded_attention` or `absorbed_attention`, whichever multiplies fewer numbers."""
    t, s, r, n, o, v = (*(x.shape[-2] for x in (q, latent)), latent.shape[-1],
                        key.shape[1], q_rotary.shape[-1], value.shape[1])  # fmt: skip
    expanded = s * r * (n + v) + t * s * (n + o + v)
    absorbed = t * r * (n + v) + t * s * (r + o + r)
    core = absorbed_attention if absorbed < expanded else expanded_attention
    return core(q, q_rotary, latent, k_rotary, key, value, attend)


class LatentAttention(nn.Module):
    """MLA: c = norm(x Wᴰ), k_rotary = RoPE(x Wᴿ) are kept; queries, keys, values of each head made.

    Args:
        kv_rank: r, the size of c.
        d_nope: width of a head's query and key without position.
        d_rope: width of their rotary part; the key's is one for all heads.
        d_value: width of a head's value.
        q_rank: queries go through a normalized latent of this size too; directly when left out.
        rotary: turns the rotary parts by their positions.
        scale: in place of 1/√(d_nope + d_rope).
        core: `expanded_attention`, `absorbed_attention`, or the cheaper of both.

    The norms' epsilon is 1e-6 whatever the model's, as in the published code.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        kv_rank: int,
        d_nope: int,
        d_rope: int,
        d_value: int,
        rotary: Callable[[Tensor, Tensor], Tensor],
        q_rank: int | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
        core: Callable[..., Tensor] = cheaper_attention,
        attention: Callable[..., Tensor] = scaled_dot_product_attention,
        linear: Callable[..., Tensor] = linear,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_heads=n_heads, kv_rank=kv_rank)
        check_sizes(d_nope=d_nope, d_rope=d_rope, d_value=d_value)
        check_dropout(dropout)
        self.n_heads, self.q_rank, self.d_nope, self.d_rope = n_heads, q_rank, d_nope, d_rope
        self.scale = (d_nope + d_rope) ** -0.5 if scale is None else scale
        self.dropout, self.rotary, self.core, self.attention = dropout, rotary, core, attention
        affine = partial(Linear, bias=False, op=linear)
        width = n_heads * (d_nope + d_rope)
        if q_rank is None:
            self.query = affine(d_model, width)
        else:
            self.query_down, self.query_up = affine(d_model, q_rank), affine(q_rank, width)
            self.query_norm = RMSNorm(q_rank, eps=1e-6)
        self.latent = affine(d_model, kv_rank)
        self.latent_norm = RMSNorm(kv_rank, eps=1e-6)
        self.rope_key = affine(d_model, d_rope)
        self.key = affine(kv_rank, n_heads * d_nope)
        self.value = affine(kv_rank, n_heads * d_value)
        self.output = affine(n_heads * d_value, d_model)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        *,
        mask: Bool[Tensor, "*#bh #t s"] | None = None,
        causal: bool = False,
        positions: Int[Tensor, "#b t"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Attend from `x` to itself, and to what the `cache` holds: latents and rotary keys."""
        if positions is None:
            if cache is not None:
                raise ValueError("with a cache MLA needs `positions`: those of the new x")
            positions = torch.arange(x.shape[1], device=x.device)[None]
        q, q_rotary = self._queries(x, positions)
        latent = self.latent_norm(self.latent(x))[:, None]  # (b, 1, t, r): one head for all
        k_rotary = self.rotary(self.rope_key(x)[:, None], positions)
        if cache is not None:
            latent, k_rotary = cache.append(latent, k_rotary)
        dropout = self.dropout if self.training else 0.0
        attend = partial(
            self.attention, mask=mask, causal=causal, scale=self.scale, dropout=dropout
        )
        key, value = (
            part.weight.unflatten(0, (self.n_heads, -1)) for part in (self.key, self.value)
        )
        out = self.core(q, q_rotary, latent[:, 0], k_rotary[:, 0], key, value, attend)
        return self.output(out.transpose(1, 2).flatten(2))

    def _queries(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Each head's query: the part without position, and the part turned by it."""
        if self.q_rank is None:
            q = self.query(x)
        else:
            q = self.query_up(self.query_norm(self.query_down(x)))
        q = q.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        q, q_rotary = q.split([self.d_nope, self.d_rope], dim=-1)
        return q, self.rotary(q_rotary, positions)


class LatentLayer:
    """One layer's latents and rotary keys, in buffers that are allocated once; a `LayerCache`."""

    def __init__(self, latents: Float[Tensor, "b 1 s r"], keys: Float[Tensor, "b 1 s o"]) -> None:
        self.latents, self.keys, self.length = latents, keys, 0

    def append(
        self, k: Float[Tensor, "b 1 t r"], v: Float[Tensor, "b 1 t o"]
    ) -> tuple[Float[Tensor, "b 1 s r"], Float[Tensor, "b 1 s o"]]:
        """Store t new latents and rotary keys; return all of both."""
        end = self.length + k.shape[2]
        if end > self.latents.shape[2] or k.shape[0] != self.latents.shape[0]:
            raise ValueError(
                f"the cache holds {self.latents.shape[0]} rows of {self.latents.shape[2]} tokens "
                f"and was given {k.shape[0]} rows up to token {end}: make it with "
                "model.new_cache(batch, max_seq_len)"
            )
        for buffer, new in ((self.latents, k), (self.keys, v)):
            buffer[:, :, self.length : end] = new
        self.length = end
        return self.latents[:, :, :end], self.keys[:, :, :end]


class LatentCache:
    """n_layers · b · max_seq_len · (r + d_rope) numbers: all that MLA keeps; a `Cache`."""

    def __init__(
        self,
        n_layers: int,
        batch: int,
        max_seq_len: int,
        *,
        kv_rank: int,
        d_rope: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        check_sizes(n_layers=n_layers, batch=batch, max_seq_len=max_seq_len)
        empty = partial(torch.zeros, dtype=dtype, device=device)
        self.n_layers, self.batch, self.max_seq_len = n_layers, batch, max_seq_len
        self.layers = [
            LatentLayer(*(empty(batch, 1, max_seq_len, width) for width in (kv_rank, d_rope)))
            for _ in range(n_layers)
        ]

    @property
    def length(self) -> int:
        """Tokens that every layer has stored."""
        return min(layer.length for layer in self.layers)

    @property
    def n_bytes(self) -> int:
        """Memory of the buffers, used or not."""
        return sum(layer.latents.nbytes + layer.keys.nbytes for layer in self.layers)

    def __getitem__(self, layer: int) -> LatentLayer:
        """The cache of one layer."""
        return self.layers[layer]

    def rollback(self, length: int) -> None:
        """Forget the tokens from `length` on in all layers."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot roll back to {length} tokens: the cache holds {self.length}")
        for layer in self.layers:
            layer.length = length

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Row i becomes what row `rows[i]` was, in all layers (the beams of a search move)."""
        for layer in self.layers:
            layer.latents, layer.keys = layer.latents[rows], layer.keys[rows]
