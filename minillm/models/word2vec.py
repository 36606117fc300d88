"""Word2Vec: skip-gram and CBOW, with negative sampling or a hierarchical softmax.

Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space" and "Distributed
Representations of Words and Phrases and their Compositionality".

    skip-gram:  h = v(center),              predicts every word of the context
    CBOW:       h = mean of v(context),     predicts the center

The full softmax over V words costs V dot products a prediction. Both ways round it are modules
here, to be handed to either model: `NegativeSampling` costs k + 1, `HierarchicalSoftmax` about
log₂ V. A word has an input vector v (the one that is kept) and output vectors u.

Axes: `b` batch, `c` context, `d` model, `v` vocabulary, `k` noise words, `l` depth of the tree. An
id of −1 is padding.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.data.windows import ContextWindows, keep_probability, subsample
from minillm.nn.linear import check_sizes


def negative_sampling_loss(
    hidden: Float[Tensor, "*n d"], positive: Float[Tensor, "*n d"], noise: Float[Tensor, "*n k d"]
) -> Float[Tensor, "*n"]:
    """−log σ(h·u) − Σₖ log σ(−h·uₖ): tell the true word u from k noise words (2013b, eq. 4)."""
    true = F.softplus(-(hidden * positive).sum(-1))
    return true + F.softplus((noise * hidden[..., None, :]).sum(-1)).sum(-1)


def hierarchical_loss(
    hidden: Float[Tensor, "*n d"], nodes: Float[Tensor, "*n l d"], signs: Float[Tensor, "*n l"]
) -> Float[Tensor, "*n"]:
    """−Σⱼ log σ(sⱼ h·nⱼ) over the nodes on a word's path; sign 0 marks padding (2013b, eq. 3)."""
    scores = signs * (nodes * hidden[..., None, :]).sum(-1)
    return (F.softplus(-scores) * signs.abs()).sum(-1)


def noise_distribution(counts: Int[Tensor, " v"], power: float | int = 0.75) -> Float[Tensor, " v"]:
    """Unigram frequencies to the power ¾, normalized: rare words are drawn more than they occur."""
    weights = counts.double() ** power
    return weights / weights.sum()


@dataclass(frozen=True)
class Huffman:
    """For each word its path from the root: inner nodes, and signs +1 (bit 0) or −1 (bit 1).

    Paths are as long as the longest; the rest of a shorter one has node 0 and sign 0.
    """

    nodes: Int[Tensor, "v l"]
    signs: Float[Tensor, "v l"]

    @property
    def lengths(self) -> Int[Tensor, " v"]:
        """Bits of each word's code."""
        return self.signs.abs().sum(1).long()


def huffman(counts: Int[Tensor, " v"]) -> Huffman:
    """The binary tree with the shortest mean path, Σ counts · lengths (Huffman 1952).

    The two least counts are joined, again and again; the smaller is the branch of bit 0. Inner
    nodes are numbered as they are made, so that the root is V − 2.
    """
    v = len(counts)
    if v < 2:
        raise ValueError(f"{v} word(s) need no tree; give at least 2")
    heap = [(n, i) for i, n in enumerate(counts.tolist())]
    heapq.heapify(heap)
    up: dict[int, tuple[int, float]] = {}
    for inner in range(v - 1):
        (n0, a), (n1, b) = heapq.heappop(heap), heapq.heappop(heap)
        up[a], up[b] = (inner, 1.0), (inner, -1.0)
        heapq.heappush(heap, (n0 + n1, v + inner))
    paths = []
    for word in range(v):
        path, at = [], word
        while at != 2 * v - 2:
            inner, sign = up[at]
            path.append((inner, sign))
            at = v + inner
        paths.append(path[::-1])
    depth = max(map(len, paths))
    padded = torch.tensor([path + [(0, 0.0)] * (depth - len(path)) for path in paths])
    return Huffman(padded[..., 0].long(), padded[..., 1].float())


@runtime_checkable
class Output(Protocol):
    """What stands after the hidden vector: the losses of several targets for each row."""

    def __call__(
        self, hidden: Tensor, targets: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """(hidden "b d", targets "b c") → losses "b c", 0 where the target is −1."""
        ...


class NegativeSampling(nn.Module):
    """Losses of targets against noise words drawn from the unigram^¾ law.

    With `shared`, a whole batch is set against the same `shared` noise words, weighted so that
    the expected loss is the same: one matrix product in place of many gathers.
    """

    def __init__(
        self,
        counts: Int[Tensor, " v"],
        d_model: int,
        n_noise: int = 5,
        *,
        power: float | int = 0.75,
        shared: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_noise=n_noise, shared=1 if shared is None else shared)
        self.n_noise, self.shared = n_noise, shared
        self.weight = nn.Parameter(torch.zeros(len(counts), d_model))
        law = noise_distribution(counts, power)
        self.register_buffer("cumulative", law.cumsum(0), persistent=False)

    def draw(
        self, shape: tuple[int, ...], generator: torch.Generator | None = None
    ) -> Int[Tensor, "..."]:
        """Noise words."""
        at = torch.rand(shape, generator=generator, dtype=torch.float64)
        at = at.to(self.cumulative.device) * self.cumulative[-1]
        return torch.searchsorted(self.cumulative, at, right=True).clamp(max=len(self.weight) - 1)

    def forward(
        self,
        hidden: Float[Tensor, "b d"],
        targets: Int[Tensor, "b c"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b c"]:
        """The loss of each target; 0 where it is −1."""
        real = targets >= 0
        positive = F.embedding(targets.clamp(min=0), self.weight)
        if self.shared is None:
            noise = F.embedding(self.draw((*targets.shape, self.n_noise), generator), self.weight)
            each = hidden[:, None].expand(positive.shape)
            return negative_sampling_loss(each, positive, noise) * real
        noise = F.embedding(self.draw((self.shared,), generator), self.weight)
        against = F.softplus(hidden @ noise.mT).mean(1, keepdim=True) * self.n_noise
        return (F.softplus(-(positive * hidden[:, None]).sum(-1)) + against) * real


class HierarchicalSoftmax(nn.Module):
    """log p(word | h) as a walk down a Huffman tree: exact, and it sums to 1 over the words."""

    def __init__(self, counts: Int[Tensor, " v"], d_model: int) -> None:
        super().__init__()
        check_sizes(d_model=d_model)
        tree = huffman(counts)
        self.weight = nn.Parameter(torch.zeros(len(counts) - 1, d_model))
        self.register_buffer("nodes", tree.nodes, persistent=False)
        self.register_buffer("signs", tree.signs.to(torch.int8), persistent=False)

    def forward(
        self,
        hidden: Float[Tensor, "b d"],
        targets: Int[Tensor, "b c"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b c"]:
        """−log p of each target; 0 where it is −1. Nothing is drawn: `generator` is not used."""
        safe = targets.clamp(min=0)
        nodes = F.embedding(self.nodes[safe], self.weight)
        each = hidden[:, None].expand(*targets.shape, -1)
        signs = self.signs[safe].to(hidden.dtype)
        return hierarchical_loss(each, nodes, signs) * (targets >= 0)

    def log_prob(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b v"]:
        """log p(· | h) for every word."""
        scores = (hidden @ self.weight.mT)[:, self.nodes] * self.signs.to(hidden.dtype)
        return -(F.softplus(-scores) * self.signs.abs().to(hidden.dtype)).sum(-1)


class Word2Vec(nn.Module):
    """Input vectors v and an output module: what skip-gram and CBOW share."""

    def __init__(self, vocab_size: int, d_model: int, output: Output) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, d_model=d_model)
        self.vectors = nn.Embedding(vocab_size, d_model)
        nn.init.uniform_(self.vectors.weight, -0.5 / d_model, 0.5 / d_model)
        self.output = output


class SkipGram(Word2Vec):
    """From the center, guess each word of its context."""

    def forward(
        self,
        centers: Int[Tensor, " b"],
        contexts: Int[Tensor, "b c"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], int]:
        """(summed loss, number of predictions)."""
        losses = self.output(self.vectors(centers), contexts, generator)
        return losses.sum(), int((contexts >= 0).sum())


class CBOW(Word2Vec):
    """From the mean of the context (a bag: order does not count), guess the center."""

    def forward(
        self,
        centers: Int[Tensor, " b"],
        contexts: Int[Tensor, "b c"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], int]:
        """(summed loss, number of predictions); centers without a context are left out."""
        real = contexts >= 0
        size = real.sum(1)
        summed = (self.vectors(contexts.clamp(min=0)) * real[..., None]).sum(1)
        targets = centers.masked_fill(size == 0, -1)
        losses = self.output(summed / size.clamp(min=1)[:, None], targets[:, None], generator)
        return losses.sum(), int((size > 0).sum())


@dataclass(frozen=True)
class Step:
    """One update: its number, the mean loss of its predictions in nats, and how many they were."""

    step: int
    loss: float
    predictions: int


def train_word2vec(
    model: Word2Vec,
    stream: Int[Tensor, " n"],
    counts: Int[Tensor, " v"],
    *,
    epochs: int = 5,
    window: int = 5,
    batch_size: int = 1024,
    lr: float = 0.1,
    threshold: float = 1e-3,
    seed: int = 0,
) -> Iterator[Step]:
    """Adagrad over `epochs` passes, each subsampled anew; the rate falls to 0 in a straight line.

    Large batches take the sum of many words' gradients at once, where word2vec takes one small
    step a word; Adagrad's rate for each weight keeps frequent words from running away.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=lr, fused=True)
    keep, step = keep_probability(counts, threshold), 0
    for epoch in range(epochs):
        windows = ContextWindows(subsample(stream, keep, generator), window)
        total = -(-int((windows.stream >= 0).sum()) // batch_size)
        for i, (centers, contexts) in enumerate(windows.batches(batch_size, generator)):
            loss, n = model(centers, contexts, generator)
            if not n:
                continue
            optimizer.param_groups[0]["lr"] = lr * (1 - (epoch + i / total) / epochs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield Step(step, loss.item() / n, n)
            step += 1
