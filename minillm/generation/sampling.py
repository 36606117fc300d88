"""From logits to the next token: greedy choice, sampling, and the filters in front of them.

Every filter is a pure function from logits to logits, −∞ for what it removes, so filters chain.
The order matters (temperature before top-p keeps other tokens than top-p before temperature);
:class:`Sampler` fixes it to that of transformers and vLLM:
repetition penalty → temperature → top-k → top-p → min-p → draw.
"""

import math
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float, Int
from torch import Tensor

REMOVED = -math.inf


def temperature(logits: Float[Tensor, "... v"], t: float) -> Float[Tensor, "... v"]:
    """logits / t: below 1 the distribution sharpens, above 1 it flattens (Ackley et al. 1985)."""
    if not isinstance(t, Real) or not 0 < t < math.inf:
        raise ValueError(
            f"temperature is {t!r}: it divides the logits, use a number above 0, or `greedy` for 0"
        )
    _check_logits(logits)
    return logits / t


def top_k(logits: Float[Tensor, "... v"], k: int) -> Float[Tensor, "... v"]:
    """Keep the k largest logits and whatever ties with the k-th (Fan et al. 2018)."""
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(
            f"top_k is {k!r}: keep a whole number of tokens, one at least; None keeps all of them"
        )
    _check_logits(logits)
    kth_largest = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < kth_largest, REMOVED)


def top_p(logits: Float[Tensor, "... v"], p: float) -> Float[Tensor, "... v"]:
    """Keep the smallest set of likeliest tokens with mass ≥ p, the nucleus (Holtzman et al. 2020).

    The token that crosses p belongs to the set, so the kept mass may exceed p and is never empty.
    Below, the same is said from the other end, where sums of small numbers lose less: a token stays
    while it and all less likely ones weigh more than 1 − p, so while those above weigh less than p.
    """
    if not isinstance(p, Real) or not 0 < p <= 1:
        raise ValueError(
            f"top_p is {p!r}: it is a probability mass, 0 < p <= 1 (1 keeps every token)"
        )
    _check_logits(logits)
    if p == 1:
        return logits
    ascending, order = logits.sort(dim=-1)
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - p
    removed[..., -1] = False
    return logits.masked_fill(removed.scatter(-1, order, removed), REMOVED)


def min_p(logits: Float[Tensor, "... v"], p: float) -> Float[Tensor, "... v"]:
    """Keep tokens with probability ≥ p · (that of the likeliest token) (Nguyen et al. 2024)."""
    if not isinstance(p, Real) or not 0 < p <= 1:
        raise ValueError(
            f"min_p is {p!r}: it is a share of the largest probability, use 0 < p <= 1 or None"
        )
    _check_logits(logits)
    probabilities = logits.softmax(-1)
    threshold = p * probabilities.amax(-1, keepdim=True)
    return logits.masked_fill(probabilities < threshold, REMOVED)


def repetition_penalty(
    logits: Float[Tensor, "b v"], previous_tokens: Int[Tensor, "b t"], penalty: float
) -> Float[Tensor, "b v"]:
    """For tokens seen, logit / penalty if positive and logit · penalty if not (Keskar et al. 2019).

    Both make a token less likely when penalty > 1, and a token seen twice is punished once.
    An id of −1 in `previous_tokens` marks padding and is skipped.
    """
    if not isinstance(penalty, Real) or not 0 < penalty < math.inf:
        raise ValueError(
            f"repetition_penalty is {penalty!r}: use a number above 0 (1 is neutral, 1.1 is mild)"
        )
    _check_logits(logits)
    vocab_size = logits.shape[-1]
    if not isinstance(previous_tokens, Tensor):
        raise ValueError(f"previous_tokens is {previous_tokens!r:.60}: write torch.tensor(ids)")
    if previous_tokens.shape[:-1] != logits.shape[:-1] or previous_tokens.is_floating_point():
        raise ValueError(
            f"previous_tokens is {previous_tokens.dtype} {tuple(previous_tokens.shape)}: logits "
            f"{tuple(logits.shape)} need integer ids with one row for each row of logits"
        )
    if previous_tokens.numel() == 0:
        return logits
    smallest, largest = int(previous_tokens.min()), int(previous_tokens.max())
    if smallest < -1 or largest >= vocab_size:
        raise ValueError(
            f"token id {smallest if smallest < -1 else largest} is not among the {vocab_size} "
            "logits: are tokenizer and model a pair?"
        )
    seen = torch.zeros(logits.shape[0], vocab_size + 1, dtype=torch.bool, device=logits.device)
    seen.scatter_(1, previous_tokens.long() % (vocab_size + 1), True)  # −1: the extra column
    seen = seen[:, :vocab_size]
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def greedy(
    logits: Float[Tensor, "... v"],
    tokens: Int[Tensor, "... t"] | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "..."]:
    """argmax of the logits, the first where several tie; a sampler's other arguments are unused."""
    _check_logits(logits)
    best = logits.max(-1)
    _check_largest(best.values)
    return best.indices


def sample(
    logits: Float[Tensor, "b v"], generator: torch.Generator | None = None
) -> Int[Tensor, " b"]:
    """One draw per row from softmax(logits); the same generator state gives the same tokens."""
    _check_logits(logits)
    if logits.ndim != 2:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}: one draw is made for each row, so write "
            "logits[None] for a single distribution"
        )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator is {generator!r:.60}: give torch.Generator().manual_seed(0), or None"
        )
    _check_largest(logits.amax(-1))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def _check_logits(logits: object) -> None:
    """Raise ValueError unless `logits` is a floating-point tensor with something to choose from."""
    if isinstance(logits, Tensor):
        if logits.ndim and logits.shape[-1] and logits.is_floating_point():
            return
        what = f"{logits.dtype} of shape {tuple(logits.shape)}"
    else:
        what = f"{logits!r:.60}"
    raise ValueError(
        f"logits is {what}: give a floating-point tensor with one number for each token in its "
        "last dimension; torch.as_tensor(logits) makes one of an array or a list"
    )


def _check_largest(largest: Float[Tensor, "..."]) -> None:
    """A row's largest logit is NaN or infinite exactly when its softmax is undefined."""
    if not largest.isfinite().all():
        bad = float(largest[~largest.isfinite()][0])
        raise ValueError(
            f"the largest logit of a row is {bad}, so there is no distribution to draw from: check "
            "the weights for NaN, the activations for overflow (fp16), and that no filter or mask "
            "has removed every token"
        )


@dataclass(frozen=True)
class Sampler:
    """Penalty, temperature, top-k, top-p, min-p, in this order, then one draw; None leaves one out.

    Called with logits "b v", the tokens so far "b t" (−1 for padding) and a generator, it returns
    ids "b".
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Try every filter once, so that a bad setting fails here and not after a long prompt."""
        self.warp(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.long))

    def warp(
        self, logits: Float[Tensor, "b v"], tokens: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b v"]:
        """The logits that the draw is made from: −∞ where a filter removed the token."""
        if self.repetition_penalty != 1.0:
            logits = repetition_penalty(logits, tokens, self.repetition_penalty)
        if self.temperature != 1.0:
            logits = temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = min_p(logits, self.min_p)
        return logits

    def __call__(
        self,
        logits: Float[Tensor, "b v"],
        tokens: Int[Tensor, "b t"],
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, " b"]:
        """Draw one token per row."""
        return sample(self.warp(logits, tokens), generator)
