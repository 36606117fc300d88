"""Adaptive softmax: frequent words cheap, rare words behind a door (Grave et al. 2017).

Words are sorted by frequency and cut at `cutoffs`. The head holds the most frequent words and one
entry for each cluster of rarer ones; a cluster is computed only for targets that lie in it, and in
a narrower space, d / qⁱ for cluster i = 1, 2, …

    log p(w) = log_softmax(head)[w]                              w in the head
             = log_softmax(head)[cluster] + log_softmax(tail)[w]  otherwise

Same parameters, names and numbers as `torch.nn.AdaptiveLogSoftmaxWithLoss`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.nn.linear import check_sizes


class Scored(NamedTuple):
    """`output`: log p of each target; `loss`: minus their mean."""

    output: Float[Tensor, " n"]
    loss: Float[Tensor, ""]


class AdaptiveSoftmax(nn.Module):
    """Log-probabilities over `vocab_size` words that are sorted from frequent to rare.

    `cutoffs` rise: [2000, 10000] puts 2,000 words into the head, 8,000 into the first cluster and
    the rest into the second. `div_value` is q.
    """

    def __init__(
        self,
        d_model: int,
        vocab_size: int,
        cutoffs: Sequence[int],
        *,
        div_value: float | int = 4.0,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, vocab_size=vocab_size)
        self.cutoffs = checked_cutoffs(cutoffs, vocab_size)
        widths = cluster_widths(d_model, len(self.cutoffs) - 1, div_value)
        self.head = nn.Linear(d_model, self.cutoffs[0] + len(widths), bias=head_bias)
        self.tail = nn.ModuleList(
            nn.Sequential(
                nn.Linear(d_model, width, bias=False), nn.Linear(width, high - low, bias=False)
            )
            for width, low, high in zip(widths, self.cutoffs, self.cutoffs[1:], strict=False)
        )

    def forward(self, hidden: Float[Tensor, "n d"], targets: Int[Tensor, " n"]) -> Scored:
        """Log-probabilities of the targets; only the clusters that they lie in are computed."""
        self._check(targets)
        first, head = self.cutoffs[0], self.head(hidden).log_softmax(-1)
        entry = targets.clone()
        for i, low in enumerate(self.cutoffs[:-1]):  # a rare word's entry is that of its cluster
            entry[targets >= low] = first + i
        output = head.gather(1, entry[:, None].long())[:, 0]
        for i, cluster in enumerate(self.tail):
            rows = ((targets >= self.cutoffs[i]) & (targets < self.cutoffs[i + 1])).nonzero()[:, 0]
            if len(rows):
                inside = cluster(hidden[rows]).log_softmax(-1)
                word = (targets[rows] - self.cutoffs[i])[:, None].long()
                output = output.index_add(0, rows, inside.gather(1, word)[:, 0])
        return Scored(output, -output.mean())

    def log_prob(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """log p of every word: as much work as a full softmax, or nearly."""
        first, head = self.cutoffs[0], self.head(hidden).log_softmax(-1)
        tails = [
            head[:, first + i, None] + cluster(hidden).log_softmax(-1)
            for i, cluster in enumerate(self.tail)
        ]
        return torch.cat([head[:, :first], *tails], dim=1)

    def predict(self, hidden: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The most probable word of each row."""
        return self.log_prob(hidden).argmax(1)

    def _check(self, targets: Tensor) -> None:
        if len(targets) and not 0 <= targets.min() <= targets.max() < self.cutoffs[-1]:
            low, high = int(targets.min()), int(targets.max())
            raise ValueError(
                f"targets lie in {low} … {high}; the vocabulary has 0 … {self.cutoffs[-1] - 1}"
            )


def checked_cutoffs(cutoffs: Sequence[int], vocab_size: int) -> list[int]:
    """`cutoffs` with the size of the vocabulary at the end; ValueError unless they rise."""
    ends = [*cutoffs, vocab_size]
    rising = all(a < b for a, b in zip([0, *ends], ends, strict=False))
    if len(ends) < 2 or not rising or any(type(c) is not int for c in cutoffs):
        raise ValueError(
            f"cutoffs are {list(cutoffs)}; give rising whole numbers between 0 and {vocab_size}"
        )
    return ends


def cluster_widths(d_model: int, n_clusters: int, div_value: float | int = 4.0) -> list[int]:
    """⌊d / qⁱ⌋ for i = 1 … n: the sizes of the clusters' own spaces."""
    widths = [int(d_model // div_value**i) for i in range(1, n_clusters + 1)]
    if div_value < 1 or min(widths) < 1:
        raise ValueError(
            f"div_value {div_value} leaves clusters of width {widths}; "
            f"give a number from 1 on, and at most {d_model} to the power 1/{n_clusters}"
        )
    return widths


def expected_flops(
    d_model: int,
    counts: Int[Tensor, " v"],
    cutoffs: Sequence[int],
    *,
    div_value: float | int = 4.0,
) -> float:
    """FLOPs of the matrix products for one target drawn by `counts`, which fall from word to word.

    2 d (cut₁ + n) for the head, and for cluster i of V_i words with probability p_i
    2 (d dᵢ + dᵢ Vᵢ). The full softmax costs 2 d V. Backward doubles and adds: three times each.
    """
    ends = checked_cutoffs(cutoffs, len(counts))
    frequency = counts.double() / counts.sum()
    total = 2.0 * d_model * (ends[0] + len(cutoffs))
    widths = cluster_widths(d_model, len(cutoffs), div_value)
    for width, low, high in zip(widths, ends, ends[1:], strict=False):
        total += 2 * width * (d_model + high - low) * float(frequency[low:high].sum())
    return total
