"""Beam search: the likeliest continuation, sought among a few prefixes kept at every step.

score(y) = log p(y | x) / penalty(|y|), where |y| counts the new tokens, the end token included.
Without a penalty short outputs win, since every token costs probability.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from minillm.generation.cache import ContiguousCache
from minillm.models.conditional_lm import ConditionalLM, Conditioned
from minillm.nn.modes import evaluation_mode

Penalty = Callable[[int], float]


def gnmt_penalty(alpha: float | int) -> Penalty:
    """((5 + n)/6)^α (Wu et al. 2016, eq. 14); the 2017 Transformer used α = 0.6."""
    return lambda n: ((5 + n) / 6) ** alpha


def power_penalty(alpha: float | int) -> Penalty:
    """n^α: 0 gives the plain sum of log-probabilities, 1 their mean; transformers' form."""
    return lambda n: float(n**alpha)


@dataclass(frozen=True)
class Hypothesis:
    """New tokens, without the prompt (an end token is the last one), and how they were judged."""

    tokens: tuple[int, ...]
    log_prob: float
    score: float


@dataclass(frozen=True)
class Step:
    """What `observe` sees of one step of one row: live prefixes, log-probabilities, finished."""

    row: int
    beams: tuple[tuple[int, ...], ...]
    log_probs: tuple[float, ...]
    finished: tuple[Hypothesis, ...]


@torch.inference_mode()
def beam_search(
    model: nn.Module,
    tokens: Int[Tensor, "b t"],
    *,
    width: int,
    max_new_tokens: int,
    eos_id: int | None = None,
    length_penalty: Penalty | None = None,
    early_stopping: bool = False,
    use_cache: bool = True,
    observe: Callable[[Step], None] | None = None,
) -> list[list[Hypothesis]]:
    """For every row of `tokens` up to `width` continuations, the best first.

    Each step extends the `width` live prefixes of a row by every token and keeps the best `width`
    that do not end. One that ends with `eos_id` is finished if it is among the best `width` of
    all; so is what is live after `max_new_tokens`. A row is done when no live prefix can overtake
    the `width` best finished ones; with `early_stopping`, as soon as `width` are finished, and
    then `width=1` is greedy decoding under any penalty (without a penalty it always is).

    Args:
        model: logits of a decoder; one with `repeat(n)`, such as `Conditioned`, is given rows of
            several sources that way.
        tokens: prompts of one length; for a translation the start token alone.
        length_penalty: `gnmt_penalty(0.6)`, `power_penalty(1.0)`, any function that does not
            fall with the length; None divides by 1.
        use_cache: keep keys and values, and reorder them as the beams change places.
        observe: called after every step of every unfinished row.
    """
    _check(model, tokens, width, max_new_tokens)
    penalty = length_penalty or (lambda n: 1.0)
    b, start = tokens.shape
    model = model.repeat(width) if hasattr(model, "repeat") else model
    prefixes = tokens.repeat_interleave(width, dim=0)
    scores = torch.full((b, width), -math.inf, dtype=torch.float64, device=tokens.device)
    scores[:, 0] = 0.0  # the prefixes of a row are still equal: only the first one counts
    cache = ContiguousCache.for_model(model, b * width, start + max_new_tokens)
    cache = cache if use_cache else None
    finished: list[list[Hypothesis]] = [[] for _ in range(b)]
    done = [False] * b
    for n in range(1, max_new_tokens + 1):
        read = 0 if cache is None else cache.length
        logits = model(prefixes[:, read:], cache=cache, last_only=True)[:, -1]
        candidates = scores[..., None] + logits.double().log_softmax(-1).view(b, width, -1)
        top, flat = candidates.flatten(1).topk(min(2 * width, candidates[0].numel()))
        beam, token = flat // candidates.shape[2], flat % candidates.shape[2]
        ends = torch.zeros_like(token, dtype=torch.bool) if eos_id is None else token == eos_id
        _finish(finished, done, prefixes[:, start:], top, beam, token, ends, n, max_new_tokens,
                width, penalty)  # fmt: skip
        if n == max_new_tokens:
            break
        # the best `width` that go on: a stable sort puts them first and keeps their order
        order = ends.int().argsort(dim=1, stable=True)[:, :width]
        scores = _padded(top.masked_fill(ends, -math.inf).gather(1, order), width, -math.inf)
        beam, token = _padded(beam.gather(1, order), width), _padded(token.gather(1, order), width)
        rows = (beam + width * torch.arange(b, device=beam.device)[:, None]).flatten()
        prefixes = torch.cat([prefixes[rows], token.flatten()[:, None]], dim=1)
        if cache is not None:
            cache.reorder(rows)
        for i in range(b):
            done[i] = done[i] or _settled(
                finished[i], float(scores[i].max()), n, max_new_tokens, width, penalty,
                early_stopping,
            )  # fmt: skip
            if observe is not None:
                observe(_step(i, prefixes, scores, finished[i], start, width))
        if all(done):
            break
    return finished


def translate(
    model: ConditionalLM,
    source: Int[Tensor, "b s"],
    *,
    start_id: int,
    eos_id: int,
    max_new_tokens: int,
    source_mask: Bool[Tensor, "b s"] | None = None,
    width: int = 1,
    length_penalty: Penalty | None = None,
    early_stopping: bool = False,
) -> list[list[int]]:
    """The best target found for every source, without start and end tokens; width 1 is greedy.

    The encoder runs once; so do the keys and values that cross-attention makes of its output.
    """
    with torch.inference_mode(), evaluation_mode(model):
        encoded = model.encode(source, source_mask=source_mask)
        memory = model.remember(encoded, source_mask=source_mask)
        found = beam_search(
            Conditioned(model, memory),
            torch.full((len(source), 1), start_id, device=source.device),
            width=width,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
            length_penalty=length_penalty,
            early_stopping=early_stopping or width == 1,
        )
    return [[i for i in hypotheses[0].tokens if i != eos_id] for hypotheses in found]


def _finish(
    finished, done, new, top, beam, token, ends, n, max_new_tokens, width, penalty
) -> None:  # fmt: skip
    """Add candidates that end, if among the best `width`, to each row's finished hypotheses."""
    last = n == max_new_tokens
    for i, hypotheses in enumerate(finished):
        if done[i]:
            continue
        for j in range(min(width, top.shape[1])):
            log_prob = float(top[i, j])
            if log_prob == -math.inf or not (last or ends[i, j]):
                continue
            prefix = new[i * width + int(beam[i, j])].tolist()
            score = log_prob / penalty(n)
            hypotheses.append(Hypothesis((*prefix, int(token[i, j])), log_prob, score))
        hypotheses.sort(key=lambda hypothesis: -hypothesis.score)  # stable: the earlier one first
        del hypotheses[width:]


def _settled(
    finished: list[Hypothesis], best_live: float, n: int, max_new_tokens: int, width: int,
    penalty: Penalty, early_stopping: bool,
) -> bool:  # fmt: skip
    """Whether a row's finished hypotheses are final.

    A live prefix only loses probability; its score is best if it loses none and gets the largest
    penalty (scores are negative) still to come.
    """
    if best_live == -math.inf:
        return True
    if len(finished) < width:
        return False
    bound = best_live / max(penalty(n + 1), penalty(max_new_tokens))
    return early_stopping or bound <= finished[-1].score


def _padded(x: Tensor, width: int, value: float | int = 0) -> Tensor:
    """`x` with columns of `value` up to `width`: a tiny vocabulary has fewer candidates."""
    return nn.functional.pad(x, (0, width - x.shape[1]), value=value)


def _step(row, prefixes, scores, finished, start, width) -> Step:
    live = [j for j in range(width) if scores[row, j] > -math.inf]
    beams = tuple(tuple(prefixes[row * width + j, start:].tolist()) for j in live)
    return Step(row, beams, tuple(float(scores[row, j]) for j in live), tuple(finished))


def _check(model: nn.Module, tokens: Tensor, width: int, max_new_tokens: int) -> None:
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)}: give ids of shape (batch, length), at least "
            "the start token for every row"
        )
    for name, value in (("width", width), ("max_new_tokens", max_new_tokens)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number, at least 1")
    if (total := tokens.shape[1] + max_new_tokens) > model.config.max_seq_len:
        raise ValueError(
            f"{tokens.shape[1]} prompt tokens and {max_new_tokens} new ones make {total}, and the "
            f"model's max_seq_len is {model.config.max_seq_len}: lower max_new_tokens"
        )
    if model.training and model.config.dropout > 0:
        raise ValueError(
            "the model is in training mode, where dropout makes every call differ: call "
            "model.eval() first"
        )
