"""Mixture of experts: a feed-forward layer of which each token uses a few parts.

y = Σᵢ gᵢ(x) Eᵢ(x), and gᵢ(x) is 0 for most experts i, which are then not computed (Shazeer et al.
2017, eq. 1). The gates are in `nn.gating`, what keeps the experts busy in `nn.balancing`.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minillm.nn.ffn import swiglu
from minillm.nn.gating import Routing, noisy_top_k_gate, top_k_gate
from minillm.nn.linear import Linear, check_sizes, linear


class Router(nn.Module):
    """gate(x Wᵀ): one linear map to a number per expert, and a gate such as `top_k_gate`.

    In half precision the logits are computed in float32 (Fedus et al. 2022, 2.4): a rounding error
    here sends a token to another expert.
    """

    def __init__(self, d_model: int, n_experts: int, gate: Callable[..., Routing]) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_experts=n_experts)
        self.gate = gate
        self.weight = nn.Parameter(torch.empty(n_experts, d_model))
        nn.init.normal_(self.weight, std=d_model**-0.5)

    def logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """x Wᵀ, in float32 at least."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(wide), self.weight.to(wide))

    def forward(self, x: Float[Tensor, "n d"]) -> Routing:
        """Where each token goes."""
        return self.gate(self.logits(x))


class NoisyRouter(Router):
    """`noisy_top_k_gate` with a second map for the size of the noise, while training.

    Both maps start at 0, so that all experts are tried alike at first (Shazeer et al. 2017, A).
    """

    def __init__(self, d_model: int, n_experts: int, *, k: int) -> None:
        super().__init__(d_model, n_experts, partial(top_k_gate, k=k))
        self.k = k
        self.noise = nn.Parameter(torch.zeros(n_experts, d_model))
        nn.init.zeros_(self.weight)

    def forward(self, x: Float[Tensor, "n d"]) -> Routing:
        """Where each token goes: with noise while training, without it afterwards."""
        if not self.training:
            return super().forward(x)
        logits = self.logits(x)
        return noisy_top_k_gate(logits, F.linear(x.to(logits), self.noise.to(logits)), self.k)


class BiasedRouter(Router):
    """A router with one `bias` per expert that steers the choice and nothing else (DeepSeek-V3).

    `gate(logits, bias=bias)` is `sigmoid_gate` or alike. No gradient reaches the bias, a buffer:
    `nn.balancing.update_bias` moves it after each step of training.
    """

    def __init__(self, d_model: int, n_experts: int, gate: Callable[..., Routing]) -> None:
        super().__init__(d_model, n_experts, gate)
        self.register_buffer("bias", torch.zeros(n_experts))

    def forward(self, x: Float[Tensor, "n d"]) -> Routing:
        """Where each token goes."""
        return self.gate(self.logits(x), bias=self.bias)


class GatedExperts(nn.Module):
    """E feed-forward layers Wᵢ₂ (σ(Wᵢ₁ x) ⊙ Wᵢ₃ x), their weights stacked along a first axis.

    Only the tokens that were sent to an expert pass through it.
    """

    def __init__(
        self,
        n_experts: int,
        d_model: int,
        d_ff: int,
        *,
        gated: Callable[[Tensor, Tensor], Tensor] = swiglu,
    ) -> None:
        super().__init__()
        check_sizes(n_experts=n_experts, d_model=d_model, d_ff=d_ff)
        self.gated = gated
        self.gate = nn.Parameter(torch.empty(n_experts, d_ff, d_model))
        self.up = nn.Parameter(torch.empty(n_experts, d_ff, d_model))
        self.down = nn.Parameter(torch.empty(n_experts, d_model, d_ff))
        for weight in (self.gate, self.up, self.down):  # as nn.Linear does
            nn.init.uniform_(
                weight, -1 / math.sqrt(weight.shape[2]), 1 / math.sqrt(weight.shape[2])
            )

    def forward(
        self, x: Float[Tensor, "n d"], sent: Bool[Tensor, "n e"], weights: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n d"]:
        """Σᵢ weightsᵢ Eᵢ(x) over the experts i that each token is `sent` to; 0 where to none."""
        y = torch.zeros_like(x)
        for i in range(len(self.gate)):
            (rows,) = sent[:, i].nonzero(as_tuple=True)
            if len(rows):
                share = weights[rows, i, None].to(x.dtype)
                y = y.index_add(0, rows, share * self.expert(i, x[rows]))
        return y

    def expert(self, i: int, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Eᵢ(x), what one expert says to each row."""
        hidden = self.gated(F.linear(x, self.gate[i]), F.linear(x, self.up[i]))
        return F.linear(hidden, self.down[i])


class SharedExpert(nn.Module):
    """sigmoid(w · x) · ffn(x): an expert that all tokens use, with a say of its own (Qwen2-MoE)."""

    def __init__(
        self, d_model: int, ffn: nn.Module, *, linear: Callable[..., Tensor] = linear
    ) -> None:
        super().__init__()
        self.ffn = ffn
        self.share = Linear(d_model, 1, bias=False, op=linear)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The expert's answer, weighed."""
        return torch.sigmoid(self.share(x)) * self.ffn(x)


class MixtureOfExperts(nn.Module):
    """y = Σᵢ gᵢ(x) Eᵢ(x) (+ shared(x)): stands where a block's feed-forward layer does.

    `shared` is a layer that every token uses besides (DeepSeekMoE, Dai et al. 2024): what all need
    is then learned once. `nn.balancing.record_routing` shows what the router decided.
    """

    def __init__(
        self, router: nn.Module, experts: nn.Module, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.router, self.experts, self.shared = router, experts, shared

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Each vector through its experts."""
        flat = x.reshape(-1, x.shape[-1])
        routing = self.router(flat)
        y = self.experts(flat, routing.sent, routing.weights)
        y = y if self.shared is None else y + self.shared(flat)
        return y.view(x.shape)
