"""Gates of a mixture of experts: which experts a token is sent to, and what each answer counts.

A gate is a function from logits, one number per token and expert, to a `Routing`. Axes: `n` tokens
(batch and length in one), `e` experts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from minillm.nn.linear import check_sizes


@dataclass(frozen=True)
class Routing:
    """What a gate decided: `sent`, true where a token goes to an expert, and the `weights`.

    `weights` is 0 where nothing is sent. `logits` are the router's, `scores` what the gate made of
    them: softmax or sigmoid, for all experts. The balancing losses read those.
    """

    logits: Float[Tensor, "n e"]
    scores: Float[Tensor, "n e"]
    sent: Bool[Tensor, "n e"]
    weights: Float[Tensor, "n e"]

    @property
    def load(self) -> Float[Tensor, " e"]:
        """Share of all choices that fell on each expert; 1/e each when balanced."""
        counts = self.sent.sum(0).to(self.scores)
        return counts / counts.sum()


def chosen(scores: Float[Tensor, "n e"], k: int) -> Bool[Tensor, "n e"]:
    """True at the k largest scores of each row."""
    check_sizes(k=k)
    if k > scores.shape[-1]:
        raise ValueError(f"k={k} experts of {scores.shape[-1]}: choose no more than there are")
    nobody = torch.zeros_like(scores, dtype=torch.bool)
    return nobody.scatter(-1, scores.topk(k, dim=-1).indices, True)


def soft_gate(logits: Float[Tensor, "n e"]) -> Routing:
    """softmax(logits) over all experts: every token goes to every expert (Jacobs et al. 1991)."""
    p = logits.softmax(dim=-1)
    return Routing(logits, p, torch.ones_like(p, dtype=torch.bool), p)


def top_k_gate(logits: Float[Tensor, "n e"], k: int, *, renormalize: bool = True) -> Routing:
    """softmax(logits), the k largest kept, and divided by their sum (Jiang et al. 2024, Mixtral).

    Without `renormalize` the weights are the probabilities themselves (Switch, k = 1; Qwen2-MoE):
    with k = 1 a renormalized weight would always be 1, and the router would get no gradient.
    """
    p = logits.softmax(dim=-1)
    sent = chosen(p, k)
    weights = p * sent
    if renormalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return Routing(logits, p, sent, weights)


def noisy_top_k_gate(
    logits: Float[Tensor, "n e"],
    noise_logits: Float[Tensor, "n e"],
    k: int,
    *,
    generator: torch.Generator | None = None,
) -> Routing:
    """softmax over the k largest of H = logits + N(0, 1) · softplus(noise_logits), 0 for the others

    (Shazeer et al. 2017, eq. 3 to 5). The noise lets experts be tried that lag behind; its size is
    learned for each expert and token. `logits` of the result are H.
    """
    draw = torch.randn(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
    return top_k_gate(logits + draw * F.softplus(noise_logits), k)


def group_limited_gate(
    logits: Float[Tensor, "n e"],
    k: int,
    *,
    n_groups: int = 1,
    top_groups: int = 1,
    scale: float | int = 1.0,
) -> Routing:
    """softmax, then the k largest within the groups whose best expert is best (DeepSeek-V2, 2.2.2).

    A group is the experts of one device: a token visits `top_groups` of `n_groups` devices at most.
    The weights are `scale` times the probabilities, not divided by their sum.
    """
    p = logits.softmax(dim=-1)
    allowed = best_groups(p, n_groups, top_groups, best=1)
    return _keep(logits, p, chosen(p.masked_fill(~allowed, -1.0), k), False, scale)


def sigmoid_gate(
    logits: Float[Tensor, "n e"],
    k: int,
    *,
    bias: Float[Tensor, " e"] | None = None,
    n_groups: int = 1,
    top_groups: int = 1,
    renormalize: bool = True,
    scale: float | int = 1.0,
) -> Routing:
    """k largest of sigmoid(logits) + bias; weights from the sigmoids alone (DeepSeek-V3, eq. 12-16)

    The `bias` steers who is chosen and does not enter the weights: it balances the load and leaves
    no gradient (Wang et al. 2024). Groups are ranked by the sum of their two best biased scores.
    """
    scores = logits.sigmoid()
    choice = scores if bias is None else scores + bias
    allowed = best_groups(choice, n_groups, top_groups, best=2)
    return _keep(
        logits, scores, chosen(choice.masked_fill(~allowed, -math.inf), k), renormalize, scale
    )


def best_groups(
    scores: Float[Tensor, "n e"], n_groups: int, top_groups: int, *, best: int
) -> Bool[Tensor, "n e"]:
    """True in the `top_groups` of `n_groups` neighboring groups with the largest scores.

    A group's score is the sum of its `best` largest members.
    """
    check_sizes(n_groups=n_groups, top_groups=top_groups)
    n, e = scores.shape
    if e % n_groups or top_groups > n_groups:
        raise ValueError(
            f"{e} experts in {n_groups} groups, {top_groups} of them used: n_groups must divide "
            "the number of experts, and top_groups be no larger than n_groups"
        )
    if n_groups == 1:
        return torch.ones_like(scores, dtype=torch.bool)
    groups = scores.view(n, n_groups, -1)
    total = groups.topk(min(best, groups.shape[-1]), dim=-1).values.sum(dim=-1)
    return chosen(total, top_groups).repeat_interleave(e // n_groups, dim=1)


def expert_choice_gate(logits: Float[Tensor, "n e"], *, factor: float | int = 2.0) -> Routing:
    """Each expert takes the n · factor/e tokens that score highest with it (Zhou et al. 2022).

    Balanced by construction: `factor` experts a token on average, none or all for a single one. In
    a causal model it leaks the future: whether a token is taken depends on all others.
    """
    n, e = logits.shape
    capacity = min(max(int(n * factor / e), 1), n)
    p = logits.softmax(dim=-1)
    sent = chosen(p.T, capacity).T
    return Routing(logits, p, sent, p * sent)


def expert_capacity(n_choices: int, n_experts: int, factor: float | int = 1.25) -> int:
    """⌈factor · choices/experts⌉: places at each expert (Fedus et al. 2022, eq. 3)."""
    check_sizes(n_choices=n_choices, n_experts=n_experts)
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be a number above 0, such as 1.25, got {factor}")
    return math.ceil(factor * n_choices / n_experts)


def drop_over_capacity(
    routing: Routing, capacity: int, *, order: Literal["token", "choice", "weight"] = "choice"
) -> Routing:
    """Keep the first `capacity` tokens at each expert; the others' weights there become 0.

    Who is first: the earlier "token" (Switch); any first "choice" before all second ones, and the
    earlier token among equals (GShard, Lepikhin et al. 2021); the larger "weight" (Riquelme et al.
    2021). The last two let a later token take an earlier one's place: they leak the future.
    """
    check_sizes(capacity=capacity)
    n, e = routing.sent.shape
    index = torch.arange(n, device=routing.sent.device, dtype=torch.float64)[:, None]
    if order == "token":
        priority = index.expand(n, e)
    elif order == "choice":
        ranks = routing.scores.masked_fill(~routing.sent, -math.inf)
        ranks = ranks.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        priority = ranks * n + index
    elif order == "weight":
        priority = -routing.weights.double()
    else:
        raise ValueError(f'order must be "token", "choice" or "weight", got {order!r}')
    queue = priority.masked_fill(~routing.sent, math.inf).argsort(dim=0, stable=True)
    kept = routing.sent & (queue.argsort(dim=0) < capacity)
    return replace(routing, sent=kept, weights=routing.weights * kept)


def limited_gate(
    logits: Float[Tensor, "n e"],
    gate: Callable[[Tensor], Routing],
    *,
    factor: float | int = 1.25,
    order: Literal["token", "choice", "weight"] = "choice",
) -> Routing:
    """`gate` with `factor` times the places that a balanced load needs; what is over is dropped."""
    routing = gate(logits)
    capacity = expert_capacity(int(routing.sent.sum()), logits.shape[1], factor)
    return drop_over_capacity(routing, capacity, order=order)


def _keep(
    logits: Tensor, scores: Tensor, sent: Tensor, renormalize: bool, scale: float | int = 1.0
) -> Routing:
    """Scores where `sent`, divided by their sum if asked for, times `scale`."""
    weights = scores * sent
    if renormalize:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return Routing(logits, scores, sent, weights * scale)
