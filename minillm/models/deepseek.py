"""DeepSeek-V2 (DeepSeek-AI 2024a) and V3 (2024b): latent attention, fine-grained shared experts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from minillm.models.causal_lm import CausalLM
from minillm.models.deepseek_format import V2_FORMAT, V3_FORMAT, Yarn
from minillm.models.hub_format import HubFormat
from minillm.models.llama import init_normal, pick
from minillm.models.moe import init_experts
from minillm.nn.blocks import PreNormBlock
from minillm.nn.ffn import GatedFeedForward
from minillm.nn.gating import group_limited_gate, sigmoid_gate
from minillm.nn.latent import LatentAttention, LatentCache, cheaper_attention
from minillm.nn.linear import check_sizes
from minillm.nn.moe import BiasedRouter, GatedExperts, MixtureOfExperts, Router
from minillm.nn.norms import RMSNorm
from minillm.nn.ops import Ops
from minillm.nn.rotary import Rotary, rotary_frequencies, rotate_pairs
from minillm.nn.rotary_scaling import yarn, yarn_scale


@dataclass(frozen=True)
class DeepSeekConfig:
    """The numbers that define a DeepSeek: sizes, then attention's, then the experts'.

    The first `n_dense` blocks have a feed-forward layer of width `d_ff`, the others `n_experts` of
    width `d_expert` (`top_k` used) besides `n_shared` that all tokens use. `routed_scale` is a
    factor of the weights. `yarn` stretches the context that the model was trained on.
    """

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    kv_rank: int = 512
    q_rank: int | None = None
    d_nope: int = 128
    d_rope: int = 64
    d_value: int = 128
    n_experts: int = 64
    top_k: int = 6
    d_expert: int = 1408
    n_shared: int = 2
    n_dense: int = 1
    n_groups: int = 1
    top_groups: int = 1
    routed_scale: float | int = 1.0
    norm_eps: float = 1e-6
    rope_theta: float | int = 10000.0
    yarn: Yarn | None = None

    def __post_init__(self) -> None:
        whole = "vocab_size max_seq_len d_model n_layers n_heads d_ff kv_rank d_nope d_rope d_value"
        whole += " n_experts top_k d_expert n_shared n_groups top_groups"
        check_sizes(**{name: getattr(self, name) for name in whole.split()})
        if self.q_rank is not None:
            check_sizes(q_rank=self.q_rank)
        usable = self.n_experts // self.n_groups * self.top_groups
        if self.n_experts % self.n_groups or self.top_groups > self.n_groups:
            raise ValueError(
                f"n_experts {self.n_experts} in n_groups {self.n_groups}, top_groups "
                f"{self.top_groups}: groups must be of equal size, and enough of them"
            )
        if self.top_k > usable:
            raise ValueError(f"top_k {self.top_k} of {usable} experts in the groups used")
        if self.n_dense not in range(self.n_layers + 1):
            raise ValueError(f"n_dense {self.n_dense} of n_layers {self.n_layers} blocks")

    @property
    def n_kv_heads(self) -> int:
        """Every head makes keys and values of its own from the latent."""
        return self.n_heads

    @property
    def d_head(self) -> int:
        """Width of a head's queries and keys."""
        return self.d_nope + self.d_rope


def v2_router(c: DeepSeekConfig) -> Router:
    """Softmax; experts from the best groups; weights times a constant, not renormalized."""
    gate = partial(
        group_limited_gate,
        k=c.top_k, n_groups=c.n_groups, top_groups=c.top_groups, scale=c.routed_scale,
    )  # fmt: skip
    return Router(c.d_model, c.n_experts, gate)


def v3_router(c: DeepSeekConfig) -> BiasedRouter:
    """Sigmoids; a bias that balances the choice; weights divided by their sum, times a constant."""
    gate = partial(
        sigmoid_gate,
        k=c.top_k, n_groups=c.n_groups, top_groups=c.top_groups, scale=c.routed_scale,
    )  # fmt: skip
    return BiasedRouter(c.d_model, c.n_experts, gate)


def rotary_and_scale(c: DeepSeekConfig) -> tuple[Rotary, float]:
    """RoPE on pairs, slowed by YaRN where the model has it; and the factor of the scores.

    YaRN's temperature goes into the scores' scale, (1 + 0.1 · mscale · ln factor)² / √d_head, so
    that it reaches the parts without position too.
    """
    frequencies = rotary_frequencies(c.d_rope, base=c.rope_theta)
    scale = c.d_head**-0.5
    if c.yarn is None:
        return Rotary(frequencies, rotate=rotate_pairs), scale
    temperature = 1 + c.yarn.mscale * (yarn_scale(c.yarn.factor) - 1)
    slowed = yarn(frequencies, c.yarn.factor, c.yarn.trained_len)
    return Rotary(slowed, rotate=rotate_pairs), scale * temperature**2


def deepseek_block(
    c: DeepSeekConfig,
    ops: Ops,
    *,
    dense: bool,
    router: Callable[[DeepSeekConfig], nn.Module],
    core: Callable[..., Tensor] = cheaper_attention,
) -> PreNormBlock:
    """x ← x + MLA(norm(x)); x ← x + experts(norm(x)), or a `dense` feed-forward layer."""
    rotary, scale = rotary_and_scale(c)
    attention = LatentAttention(
        c.d_model, c.n_heads,
        kv_rank=c.kv_rank, q_rank=c.q_rank, d_nope=c.d_nope, d_rope=c.d_rope, d_value=c.d_value,
        rotary=rotary, scale=scale, core=core, attention=ops.attention, linear=ops.linear,
    )  # fmt: skip

    def ffn(width: int) -> nn.Module:
        return GatedFeedForward(c.d_model, width, gated=ops.swiglu, linear=ops.linear)

    experts = partial(GatedExperts, c.n_experts, c.d_model, c.d_expert, gated=ops.swiglu)
    return PreNormBlock(
        attention,
        ffn(c.d_ff) if dense
        else MixtureOfExperts(router(c), experts(), ffn(c.n_shared * c.d_expert)),
        RMSNorm(c.d_model, eps=c.norm_eps, op=ops.rms_norm),
        RMSNorm(c.d_model, eps=c.norm_eps, op=ops.rms_norm),
    )  # fmt: skip


class DeepSeek(CausalLM):
    """Token vectors, blocks of MLA and experts, one more norm, an output layer of its own."""

    def __init__(
        self,
        config: DeepSeekConfig,
        *,
        router: Callable[[DeepSeekConfig], nn.Module],
        hub_format: HubFormat,
        core: Callable[..., Tensor] = cheaper_attention,
        ops: Ops | None = None,
    ) -> None:
        c, ops = config, ops or Ops()
        block = partial(deepseek_block, c, ops, router=router, core=core)
        super().__init__(
            c,
            (block(dense=i < c.n_dense) for i in range(c.n_layers)),
            final_norm=RMSNorm(c.d_model, eps=c.norm_eps, op=ops.rms_norm),
            tied=False,
            hub_format=hub_format,
            ops=ops,
        )
        init_normal(self)
        init_experts(self)

    def new_cache(self, batch: int = 1, max_seq_len: int | None = None) -> LatentCache:
        """An empty cache of latents and rotary keys, of this model's type and device."""
        c, weight = self.config, self.tokens.weight
        return LatentCache(
            c.n_layers, batch, c.max_seq_len if max_seq_len is None else max_seq_len,
            kv_rank=c.kv_rank, d_rope=c.d_rope, dtype=weight.dtype, device=weight.device,
        )  # fmt: skip


V2_SIZES = {
    "lite": {"d_model": 2048, "n_layers": 27, "n_heads": 16, "d_ff": 10944},
    "236b": {
        "d_model": 5120, "n_layers": 60, "n_heads": 128, "d_ff": 12288, "q_rank": 1536,
        "n_experts": 160, "d_expert": 1536, "n_groups": 8, "top_groups": 3, "routed_scale": 16.0,
    },
}  # fmt: skip


def deepseek_v2(size: str = "236b", *, ops: Ops | None = None, **overrides: Any) -> DeepSeek:
    """DeepSeek-V2 (236b, 21B used by a token) and V2-Lite; as trained, before YaRN stretched it."""
    numbers = {"vocab_size": 102400, "max_seq_len": 4096, **pick(V2_SIZES, size), **overrides}
    config = DeepSeekConfig(**numbers)
    return DeepSeek(config, router=v2_router, hub_format=V2_FORMAT, ops=ops)


def deepseek_v3(*, ops: Ops | None = None, **overrides: Any) -> DeepSeek:
    """DeepSeek-V3 and R1: 671B parameters, 37B used by a token; as trained, before YaRN."""
    numbers = {
        "vocab_size": 129280, "max_seq_len": 4096, "d_model": 7168, "n_layers": 61, "n_heads": 128,
        "d_ff": 18432, "q_rank": 1536, "n_experts": 256, "top_k": 8, "d_expert": 2048,
        "n_shared": 1, "n_dense": 3, "n_groups": 8, "top_groups": 4, "routed_scale": 2.5,
    }  # fmt: skip
    config = DeepSeekConfig(**{**numbers, **overrides})
    return DeepSeek(config, router=v3_router, hub_format=V3_FORMAT, ops=ops)
