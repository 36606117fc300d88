"""Text with damage to repair: T5's span corruption and the five kinds of noise of BART.

Every function takes one sequence of ids and a generator, and is a pure function of both. What is
taken out can be put back: `restore` and `refill` invert `corrupt_spans` and `infill`.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Ids = Int[Tensor, "_"]


def span_mask(
    n: int,
    generator: torch.Generator,
    *,
    density: float | int = 0.15,
    mean_length: float | int = 3.0,
) -> Bool[Tensor, " n"]:
    """True at the tokens to take out of n: round(n · density) of them, in round(that / mean) spans.

    Lengths of spans and of the text between them are drawn uniformly from all ways to cut a whole
    into so many parts, as in T5's own code (`random_spans_noise_mask`; Raffel et al. 2020, 3.1.4).
    So text and spans alternate, the first token always stays, and the last one never does.
    """
    n_noise, n_spans = span_counts(n, density=density, mean_length=mean_length)
    spans = _cut(n_noise, n_spans, generator)
    kept = _cut(n - n_noise, n_spans, generator)
    lengths = torch.stack([kept, spans], dim=1).flatten()
    return torch.tensor([False, True]).repeat(n_spans).repeat_interleave(lengths)


def span_counts(
    n: int, *, density: float | int = 0.15, mean_length: float | int = 3.0
) -> tuple[int, int]:
    """(tokens taken out, spans) of n: so all sequences of one length need batches of one shape."""
    if n < 2:
        raise ValueError(f"{n} token(s): at least 2 are needed, one to stay and one to take out")
    if not 0 < density < 1 or not 1 <= mean_length < math.inf:
        raise ValueError(
            f"density {density} must be between 0 and 1 and mean_length {mean_length} at least 1"
        )
    n_noise = min(max(round(n * density), 1), n - 1)
    n_spans = max(round(n_noise / mean_length), 1)
    return n_noise, min(n_spans, n_noise, n - n_noise)


def corrupt_spans(
    tokens: Int[Tensor, " n"], mask: Bool[Tensor, " n"], sentinels: Sequence[int]
) -> tuple[Ids, Ids]:
    """(input, target): each span of `mask` becomes a sentinel; the target lists what it stood for.

    "a b c d e" without "b c" and "e" gives "a ‹0› d ‹1›" and "‹0› b c ‹1› e ‹2›": one more sentinel
    ends the target (Raffel et al. 2020, figure 2). The end-of-text token is for the caller to add.
    """
    if tokens.shape != mask.shape or tokens.ndim != 1:
        raise ValueError(f"tokens {tuple(tokens.shape)} and mask {tuple(mask.shape)} must match")
    starts = mask & ~torch.cat([mask.new_zeros(1), mask[:-1]])
    n_spans = int(starts.sum())
    if n_spans >= len(sentinels):
        raise ValueError(f"{n_spans} spans need {n_spans + 1} sentinels, got {len(sentinels)}")
    if torch.isin(tokens, torch.tensor(sentinels)).any():
        raise ValueError("the text holds a sentinel; take ids that no text has")
    marks = torch.tensor([*sentinels[: n_spans + 1]], dtype=tokens.dtype)
    number = starts.cumsum(0) - 1
    source = torch.where(starts, marks[number.clamp(min=0)], tokens)[~mask | starts]
    pieces = [torch.cat([marks[i : i + 1], tokens[mask & (number == i)]]) for i in range(n_spans)]
    return source, torch.cat([*pieces, marks[n_spans:]])


def restore(source: Ids, target: Ids, sentinels: Sequence[int]) -> Ids:
    """The text from which `corrupt_spans` made `source` and `target`, or what a model proposes.

    A sentinel that `target` lacks stays in the text; what follows an unknown one is dropped.
    """
    answers: dict[int, list[int]] = {}
    current: list[int] = []
    for token in target.tolist():
        if token in sentinels:
            current = answers.setdefault(token, [])
        else:
            current.append(token)
    filled: list[int] = []
    for token in source.tolist():
        filled += answers.get(token, [token]) if token in sentinels else [token]
    return torch.tensor(filled, dtype=source.dtype)


def mask_tokens(tokens: Ids, mask_id: int, generator: torch.Generator, *, p: float = 0.3) -> Ids:
    """Each token becomes `mask_id` with probability p (Lewis et al. 2020, token masking)."""
    return tokens.masked_fill(_chosen(len(tokens), p, generator), mask_id)


def delete_tokens(tokens: Ids, generator: torch.Generator, *, p: float = 0.3) -> Ids:
    """Each token is gone with probability p: the model must find where (token deletion)."""
    return tokens[~_chosen(len(tokens), p, generator)]


def infill(
    tokens: Ids,
    mask_id: int,
    generator: torch.Generator,
    *,
    ratio: float | int = 0.3,
    mean_length: float | int = 3.0,
) -> tuple[Ids, list[Ids]]:
    """(damaged text, what each mask stands for): spans of Poisson lengths, one `mask_id` for each.

    Lengths are drawn from Poisson(`mean_length`) until they hold round(ratio · n) tokens, the last
    one cut to fit; 0 puts a mask where nothing is missing (Lewis et al. 2020, text infilling). Any
    arrangement of kept tokens and spans is equally likely.
    """
    n, lengths = len(tokens), []
    if not 0 < ratio < 1 or not 0 < mean_length < math.inf:
        raise ValueError(f"ratio {ratio} must be in (0, 1), mean_length {mean_length} above 0")
    budget = round(ratio * n)
    while sum(lengths) < budget:
        length = int(torch.poisson(torch.tensor(float(mean_length)), generator=generator))
        lengths.append(min(length, budget - sum(lengths)))
    slots = n - budget + len(lengths)
    is_mask = torch.zeros(slots, dtype=torch.bool)
    is_mask[torch.randperm(slots, generator=generator)[: len(lengths)]] = True
    order = torch.randperm(len(lengths), generator=generator).tolist()
    left = iter([lengths[i] for i in order])
    sizes = [next(left) if masked else 1 for masked in is_mask.tolist()]
    pieces = tokens.split(sizes)
    spans = [piece for piece, masked in zip(pieces, is_mask, strict=True) if masked]
    damaged = torch.full((slots,), mask_id, dtype=tokens.dtype)
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
    damaged[~is_mask] = tokens[starts[~is_mask]]
    return damaged, spans


def refill(damaged: Ids, spans: Sequence[Ids], mask_id: int) -> Ids:
    """The text from which `infill` made both."""
    masks = (damaged == mask_id).nonzero().flatten().tolist()
    if len(masks) != len(spans):
        raise ValueError(f"{len(masks)} masks and {len(spans)} spans: give as many")
    pieces, last = [], 0
    for place, span in zip(masks, spans, strict=True):
        pieces += [damaged[last:place], span]
        last = place + 1
    return torch.cat([*pieces, damaged[last:]])


def permute_sentences(tokens: Ids, ends: Sequence[int], generator: torch.Generator) -> Ids:
    """The sentences, each up to and with one of the ids `ends`, in a random order."""
    last = torch.isin(tokens, torch.tensor(ends, dtype=tokens.dtype)).nonzero().flatten() + 1
    cuts = [c for c in last.tolist() if c < len(tokens)]
    sentences = tokens.tensor_split(cuts)
    order = torch.randperm(len(sentences), generator=generator)
    return torch.cat([sentences[i] for i in order])


def rotate(tokens: Ids, generator: torch.Generator) -> Ids:
    """The text begun at a random token, its beginning put at the end (document rotation)."""
    return tokens.roll(-int(torch.randint(len(tokens), (1,), generator=generator)))


def _cut(total: int, parts: int, generator: torch.Generator) -> Int[Tensor, " parts"]:
    """`parts` whole numbers ≥ 1 with this sum, all choices of the cuts equally likely."""
    cuts = torch.randperm(total - 1, generator=generator)[: parts - 1].sort().values + 1
    edges = torch.cat([torch.tensor([0]), cuts, torch.tensor([total])])
    return edges.diff()


def _chosen(n: int, p: float | int, generator: torch.Generator) -> Bool[Tensor, " n"]:
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; give a probability, such as 0.3")
    return torch.rand(n, generator=generator) < p
