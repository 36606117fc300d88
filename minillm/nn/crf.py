"""Linear-chain conditional random field (Lafferty, McCallum and Pereira 2001).

A tag sequence y for a text of T tokens has the score

    s(y) = start[y₁] + Σₜ emission[t, yₜ] + Σₜ transition[yₜ₋₁, yₜ] + end[y_T]

and the probability exp(s(y) − log Z), where Z sums exp(s) over all Kᵀ sequences. The forward
algorithm finds log Z, and Viterbi's the best sequence, with T K² additions.

Axes: `b` batch, `t` tokens, `k` tags. A mask is True at real tokens; padding is on the right.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.nn.linear import check_sizes


class Chain(NamedTuple):
    """The scores of a chain that do not depend on the text: `transition[i, j]` is from i to j."""

    start: Float[Tensor, " k"]
    transition: Float[Tensor, "k k"]
    end: Float[Tensor, " k"]


def sequence_score(
    emissions: Float[Tensor, "b t k"],
    tags: Int[Tensor, "b t"],
    chain: Chain,
    mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, " b"]:
    """s(y), the unnormalized log-probability of `tags`; tags at padding do not matter."""
    mask = _checked(emissions, chain, mask)
    _check_tags(tags, emissions, mask)
    tags = tags.masked_fill(~mask, 0)
    emitted = emissions.gather(2, tags[..., None])[..., 0]
    moved = chain.transition[tags[:, :-1], tags[:, 1:]]
    last = tags.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
    inside = (emitted * mask).sum(1) + (moved * mask[:, 1:]).sum(1)
    return chain.start[tags[:, 0]] + inside + chain.end[last]


def forward_scores(
    emissions: Float[Tensor, "b t k"],
    chain: Chain,
    mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t k"]:
    """αₜ[j]: log of the summed weight of all beginnings that reach tag j at token t.

    α₁ = start + emission₁, αₜ[j] = emissionₜ[j] + logsumexpᵢ(αₜ₋₁[i] + transition[i, j]). At
    padding the last real α is repeated.
    """
    mask = _checked(emissions, chain, mask)
    alphas = [chain.start + emissions[:, 0]]
    for t in range(1, emissions.shape[1]):
        paths = alphas[-1][:, :, None] + chain.transition
        step = torch.logsumexp(paths, dim=1) + emissions[:, t]
        alphas.append(torch.where(mask[:, t, None], step, alphas[-1]))
    return torch.stack(alphas, dim=1)


def backward_scores(
    emissions: Float[Tensor, "b t k"],
    chain: Chain,
    mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t k"]:
    """βₜ[i]: log of the summed weight of all ways to go on after tag i at token t.

    β_T = end, βₜ[i] = logsumexpⱼ(transition[i, j] + emissionₜ₊₁[j] + βₜ₊₁[j]).
    """
    mask = _checked(emissions, chain, mask)
    beta = chain.end.expand(emissions.shape[0], -1)
    betas = [beta]
    for t in reversed(range(1, emissions.shape[1])):
        paths = chain.transition + (emissions[:, t] + beta)[:, None, :]
        beta = torch.where(mask[:, t, None], torch.logsumexp(paths, dim=2), beta)
        betas.append(beta)
    return torch.stack(betas[::-1], dim=1)


def log_partition(
    emissions: Float[Tensor, "b t k"],
    chain: Chain,
    mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, " b"]:
    """log Z, over all tag sequences, by the forward algorithm."""
    return torch.logsumexp(forward_scores(emissions, chain, mask)[:, -1] + chain.end, dim=-1)


def marginals(
    emissions: Float[Tensor, "b t k"],
    chain: Chain,
    mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t k"]:
    """p(yₜ = j | text) = exp(αₜ[j] + βₜ[j] − log Z), by forward-backward; 0 at padding."""
    mask = _checked(emissions, chain, mask)
    alpha, beta = forward_scores(emissions, chain, mask), backward_scores(emissions, chain, mask)
    log_z = torch.logsumexp(alpha[:, -1] + chain.end, dim=-1)
    return (alpha + beta - log_z[:, None, None]).exp() * mask[..., None]


def viterbi(
    emissions: Float[Tensor, "b t k"],
    chain: Chain,
    mask: Bool[Tensor, "b t"] | None = None,
) -> tuple[Int[Tensor, "b t"], Float[Tensor, " b"]]:
    """The best tag sequence and its score (Viterbi 1967); −1 at padding.

    The forward algorithm with a maximum in place of the sum, remembering where it came from.
    """
    mask = _checked(emissions, chain, mask)
    best = chain.start + emissions[:, 0]
    stay = torch.arange(best.shape[1], device=best.device).expand_as(best)
    origins = []
    for t in range(1, emissions.shape[1]):
        step, origin = (best[:, :, None] + chain.transition).max(dim=1)
        real = mask[:, t, None]
        best = torch.where(real, step + emissions[:, t], best)
        origins.append(torch.where(real, origin, stay))
    score, tag = (best + chain.end).max(dim=-1)
    path = [tag]
    for origin in reversed(origins):
        tag = origin.gather(1, tag[:, None])[:, 0]
        path.append(tag)
    return torch.stack(path[::-1], dim=1).masked_fill(~mask, -1), score


class LinearChainCRF(nn.Module):
    """log p(y | text) = s(y) − log Z, with learned start, transition and end scores.

    The emissions come from a network. Zeros at the start: at first the tags are independent.
    """

    def __init__(self, n_tags: int) -> None:
        super().__init__()
        check_sizes(n_tags=n_tags)
        self.start = nn.Parameter(torch.zeros(n_tags))
        self.transition = nn.Parameter(torch.zeros(n_tags, n_tags))
        self.end = nn.Parameter(torch.zeros(n_tags))

    @property
    def chain(self) -> Chain:
        """The three together, for the functions of this module."""
        return Chain(self.start, self.transition, self.end)

    def forward(
        self,
        emissions: Float[Tensor, "b t k"],
        tags: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, " b"]:
        """−log p(tags | text) in nats, one number for each text; never negative."""
        score = sequence_score(emissions, tags, self.chain, mask)
        return log_partition(emissions, self.chain, mask) - score

    def decode(
        self, emissions: Float[Tensor, "b t k"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Int[Tensor, "b t"]:
        """The most probable tag sequence; −1 at padding."""
        return viterbi(emissions, self.chain, mask)[0]


def _checked(emissions: Tensor, chain: Chain, mask: Tensor | None) -> Tensor:
    """The mask, all True if there is none, or a ValueError for what does not fit together."""
    if emissions.ndim != 3 or emissions.shape[1] == 0:
        raise ValueError(f"emissions must be (b, t ≥ 1, k), got {tuple(emissions.shape)}")
    if emissions.shape[2] != len(chain.start):
        raise ValueError(
            f"emissions score {emissions.shape[2]} tags and the chain {len(chain.start)}: one "
            "score for each tag at each token"
        )
    if mask is None:
        return torch.ones(emissions.shape[:2], dtype=torch.bool, device=emissions.device)
    if mask.dtype != torch.bool or mask.shape != emissions.shape[:2]:
        raise ValueError(
            f"mask must be boolean {tuple(emissions.shape[:2])}, got {mask.dtype} "
            f"{tuple(mask.shape)}"
        )
    if not mask[:, 0].all() or (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError(
            "a row of the mask is empty or has True after False: drop empty texts, pad on the right"
        )
    return mask


def _check_tags(tags: Tensor, emissions: Tensor, mask: Tensor) -> None:
    if tags.shape != mask.shape:
        raise ValueError(f"tags {tuple(tags.shape)} must match the tokens {tuple(mask.shape)}")
    real, k = tags[mask], emissions.shape[2]
    if int(real.min()) < 0 or int(real.max()) >= k:
        raise ValueError(
            f"tags at real tokens go from {int(real.min())} to {int(real.max())}; they must lie in "
            f"0 … {k - 1}, so mask what has no tag"
        )
