"""Are word vectors any good: cosine, nearest neighbors, analogies, agreement with people.

    3CosAdd:  a is to b as c is to  argmax over w of cos(w, b̂ − â + ĉ)

â is a's vector at unit length (Mikolov, Yih and Zweig 2013; named by Levy and Goldberg 2014). The
three words of the question are no candidates, by custom; without that rule the answer is mostly
one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor


def unit(vectors: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Each vector divided by its length; a zero vector stays zero."""
    length = vectors.norm(dim=-1, keepdim=True)
    return vectors / length.where(length > 0, 1.0)


def cosine(a: Float[Tensor, "*n d"], b: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """a·b / (|a| |b|), of each pair of rows; 0 where a vector is zero."""
    return (unit(a) * unit(b)).sum(-1)


def nearest(
    vectors: Float[Tensor, "v d"],
    query: Float[Tensor, "*n d"],
    k: int = 10,
    *,
    exclude: Int[Tensor, "*n m"] | None = None,
) -> tuple[Float[Tensor, "*n k"], Int[Tensor, "*n k"]]:
    """(cosines, rows) of the k rows nearest to each query, the nearest first.

    `exclude` lists, for each query, rows that do not count.
    """
    scores = unit(query) @ unit(vectors).mT
    if exclude is not None:
        scores = scores.scatter(-1, exclude, -torch.inf)
    free = len(vectors) - (0 if exclude is None else exclude.shape[-1])
    if not 1 <= k <= free:
        raise ValueError(f"k is {k}; there are {free} rows to choose from")
    return scores.topk(k, dim=-1)


def analogy(
    vectors: Float[Tensor, "v d"],
    questions: Int[Tensor, "n 3"],
    k: int = 1,
    *,
    exclude: bool = True,
) -> Int[Tensor, "n k"]:
    """3CosAdd: for questions (a, b, c), the k rows nearest to b̂ − â + ĉ, the best first."""
    a, b, c = unit(vectors)[questions].unbind(1)
    return nearest(vectors, b - a + c, k, exclude=questions if exclude else None)[1]


def ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """1 for the smallest, n for the largest; equal values share the mean of their places."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]


def spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Spearman's ρ: the correlation of the ranks, from −1 to 1; NaN if one side is constant."""
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"{len(a)} and {len(b)} values; give two lists of one length, at least 2")
    x, y = (ranks(values.double()) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x.norm() * y.norm()))


@dataclass(frozen=True)
class AnalogyScore:
    """Questions that were right, that were asked, and that held a word not in the vocabulary."""

    right: int
    asked: int
    skipped: int

    @property
    def accuracy(self) -> float:
        """Share of the questions asked that were right; NaN if none was."""
        return self.right / self.asked if self.asked else float("nan")


def score_analogies(
    vectors: Float[Tensor, "v d"],
    ids: dict[str, int],
    questions: Sequence[tuple[str, str, str, str]],
    *,
    exclude: bool = True,
    batch_size: int = 512,
) -> AnalogyScore:
    """How often 3CosAdd finds the fourth word of (a, b, c, d)."""
    known = [[ids[w] for w in four] for four in questions if all(w in ids for w in four)]
    right = 0
    for part in torch.tensor(known, dtype=torch.long).reshape(-1, 4).split(batch_size):
        found = analogy(vectors, part[:, :3], exclude=exclude)[:, 0]
        right += int((found == part[:, 3]).sum())
    return AnalogyScore(right, len(known), len(questions) - len(known))


def read_analogies(path: str | Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """The sections of a file such as questions-words.txt, in lower case."""
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    section: list[tuple[str, str, str, str]] = []
    for line in Path(path).read_text("utf-8").splitlines():
        if line.startswith(":"):
            section = sections.setdefault(line[1:].strip(), [])
            continue
        four = tuple(line.lower().split())
        if len(four) != 4:
            raise ValueError(f"{line!r:.60} is no analogy; expected four words or ': section'")
        section.append(four)
    return sections


def read_word_pairs(path: str | Path) -> list[tuple[str, str, float]]:
    """(word, word, people's mean judgment) from a table such as wordsim353.tsv, in lower case."""
    pairs = []
    for line in Path(path).read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            a, b, score = line.lower().split("\t")
            pairs.append((a, b, float(score)))
        except ValueError as error:
            raise ValueError(f"{line!r:.60}: expected word, tab, word, tab, number") from error
    return pairs


def score_word_pairs(
    vectors: Float[Tensor, "v d"], ids: dict[str, int], pairs: Sequence[tuple[str, str, float]]
) -> tuple[float, int]:
    """(Spearman's ρ between cosines and people's judgments, pairs with both words known)."""
    known = [(ids[a], ids[b], s) for a, b, s in pairs if a in ids and b in ids]
    if len(known) < 2:
        raise ValueError(f"only {len(known)} of {len(pairs)} pairs are in the vocabulary")
    left, right, judged = (torch.tensor(column) for column in zip(*known, strict=True))
    return spearman(cosine(vectors[left], vectors[right]).double(), judged.double()), len(known)
