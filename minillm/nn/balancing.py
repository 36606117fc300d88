"""Keeping all experts of a mixture busy: losses on the routing, and a bias that needs no loss.

A router left alone sends more to experts that are already good, which get better for it. The losses
differ between papers in what they average; each is a function here. Axes: `n` tokens, `e` experts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.gating import Routing
from minillm.nn.losses import z_loss
from minillm.nn.moe import BiasedRouter, MixtureOfExperts


@contextmanager
def record_routing(model: nn.Module) -> Iterator[list[Routing]]:
    """Collect what each router of `model` decides, in order, while the block runs.

    `with record_routing(model) as routings: logits = model(tokens)`; the tensors keep their graph,
    so a loss on them trains the routers.
    """
    found: list[Routing] = []
    mixtures = [part for part in model.modules() if isinstance(part, MixtureOfExperts)]
    if not mixtures:
        raise ValueError(f"{type(model).__name__} has no MixtureOfExperts whose routing to record")
    hooks = [
        mixture.router.register_forward_hook(lambda _, __, routing: found.append(routing))
        for mixture in mixtures
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def switch_loss(routing: Routing, keep: Bool[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
    """E Σᵢ fᵢ Pᵢ: fᵢ the share of choices on expert i, Pᵢ its mean probability (Fedus et al. 2022).

    1 when both are uniform, up to E when one expert gets all. Only P has a gradient: the loss
    lowers an expert's probability in proportion to how busy it is. `keep` is false at padding.
    """
    scores, sent = _kept(routing, keep)
    shares = sent.sum(0).to(scores) / sent.sum()
    return len(shares) * (shares * scores.mean(0)).sum()


def pooled_switch_loss(
    routings: Sequence[Routing], keep: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """transformers' `load_balancing_loss_func`: one loss of all layers' choices pooled, times k.

    fᵢ counts choices per *token* (Σ fᵢ = k), so perfect balance gives k, not 1; and an expert that
    is idle in one layer is excused by its namesake in another.
    """
    kept = [_kept(routing, keep) for routing in routings]
    scores, sent = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return sent.shape[1] * (sent.to(scores.dtype).mean(0) * scores.mean(0)).sum()


def sequence_balance_loss(routing: Routing, batch: int) -> Float[Tensor, ""]:
    """Mean over sequences of E Σᵢ fᵢ Pᵢ, each sequence by itself (DeepSeek-V3, eq. 17 to 20).

    Pᵢ averages scores divided by their sum over the experts, which changes sigmoids and not
    softmaxes. `batch` sequences of equal length make up the tokens.
    """
    n, e = routing.scores.shape
    if batch < 1 or n % batch:
        raise ValueError(f"{n} tokens are not {batch} sequences of equal length: give their number")
    scores = routing.scores / routing.scores.sum(dim=-1, keepdim=True)
    mean = scores.view(batch, -1, e).mean(1)
    counts = routing.sent.view(batch, -1, e).sum(1).to(scores)
    shares = counts / counts.sum(dim=-1, keepdim=True)
    return e * (shares * mean).sum(dim=-1).mean()


def importance_loss(routing: Routing) -> Float[Tensor, ""]:
    """CV(Σₙ weights)²: squared relative spread of the weight each expert gets (Shazeer et al. 2017)

    (eq. 6 and 7; the variance divides by E). 0 when all experts count the same in sum.
    """
    importance = routing.weights.sum(0)
    return importance.var(correction=0) / importance.mean().square()


def router_z_loss(routing: Routing, keep: Bool[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
    """⟨(log Σᵢ exp logitsᵢ)²⟩ keeps the router's logits small (Zoph et al. 2022, ST-MoE, eq. 5).

    The same function as the output layer's `z_loss`, on other logits.
    """
    return z_loss(routing.logits, keep)


@torch.no_grad()
def update_bias(router: BiasedRouter, counts: Int[Tensor, " e"], *, rate: float = 0.001) -> None:
    """biasᵢ += rate · sign(mean count − countᵢ): up for idle experts (Wang et al. 2024).

    `counts` are the tokens each expert got in the last step. DeepSeek-V3 uses the rate 0.001.
    """
    counts = counts.to(router.bias)
    router.bias += rate * (counts.mean() - counts).sign()


def _kept(routing: Routing, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores and choices of the tokens that count."""
    if keep is None:
        return routing.scores, routing.sent
    if keep.dtype != torch.bool or keep.shape != routing.sent.shape[:1]:
        raise ValueError(
            f"keep must be boolean, one flag for each of the {len(routing.sent)} tokens, got "
            f"{keep.dtype} {tuple(keep.shape)}; write attention_mask.flatten()"
        )
    return routing.scores[keep], routing.sent[keep]
