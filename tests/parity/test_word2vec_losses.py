"""Skip-gram and CBOW: gensim's Huffman codes, and losses from torch's own binary cross-entropy.

gensim computes in float32 with a table of the sigmoid, so its vectors after training agree to two
digits only (tests/models/test_word2vec.py); the numbers here are in double precision.
"""

import pytest
import torch
import torch.nn.functional as F
from gensim.models import Word2Vec

from minillm.models.word2vec import CBOW, HierarchicalSoftmax, NegativeSampling, SkipGram

COUNTS = torch.tensor([60, 41, 32, 22, 14, 8, 6, 2, 1])
D, ATOL = 7, 1e-9
BCE = "torch.nn.functional.binary_cross_entropy_with_logits"
CENTERS = torch.tensor([0, 3, 8, 5])
CONTEXTS = torch.tensor([[1, 2], [4, -1], [7, 7], [0, 6]])


@pytest.fixture(scope="module")
def gensims():
    """(nodes, bits) of each word's path, from gensim."""
    texts = [[f"w{i}"] * int(n) for i, n in enumerate(COUNTS)]
    oracle = Word2Vec(texts, hs=1, negative=0, min_count=1, vector_size=D, sample=0, workers=1)
    attribute = oracle.wv.get_vecattr
    words = [f"w{i}" for i in range(len(COUNTS))]
    return [(attribute(w, "point").tolist(), attribute(w, "code").tolist()) for w in words]


def noisy(module, seed=1):
    """Noise on every parameter; the buffers are the tree and the noise law, which stay."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.double().parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return module


def predictions(kind, vectors):
    """(hidden vector, target) of every prediction, pair by pair."""
    for center, row in zip(CENTERS.tolist(), CONTEXTS.tolist(), strict=True):
        context = [c for c in row if c >= 0]
        if kind is SkipGram:
            yield from ((vectors[center], c) for c in context)
        else:
            yield torch.stack([vectors[c] for c in context]).mean(0), center


def compare(model, expected, record, name):
    loss, _ = model(CENTERS, CONTEXTS, torch.Generator().manual_seed(5))
    parameters = [model.vectors.weight, model.output.weight]
    mine = torch.autograd.grad(loss, parameters)
    theirs = torch.autograd.grad(expected, parameters)
    assert min(g.abs().max() for g in theirs) > 1e-3
    errors = {"loss": abs(loss - expected)}
    errors["gradients"] = max((a - b).abs().max() for a, b in zip(mine, theirs, strict=True))
    for check, error in errors.items():
        record(name, BCE, check, error)
    return max(errors.values())


@pytest.mark.parametrize("kind", [SkipGram, CBOW])
def test_hierarchical_softmax(kind, gensims, record):
    model = noisy(kind(len(COUNTS), D, HierarchicalSoftmax(COUNTS, D)))
    tree = model.output
    for word, (nodes, bits) in enumerate(gensims):
        n = len(bits)
        assert not tree.signs[word, n:].any(), "the path is longer than gensim's"
        wrong = (tree.nodes[word, :n] != torch.tensor(nodes)).sum()
        wrong = int(wrong + ((tree.signs[word, :n] < 0) != torch.tensor(bits).bool()).sum())
        record("Huffman tree", "gensim.models.Word2Vec", "nodes and bits that differ", wrong)
        assert wrong == 0
    expected = 0.0
    for hidden, target in predictions(kind, model.vectors.weight):
        nodes, bits = gensims[target]
        scores = tree.weight[torch.tensor(nodes)] @ hidden
        labels = 1 - torch.tensor(bits, dtype=torch.float64)
        expected = expected + F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")
    name = f"{kind.__name__}, hierarchical softmax"
    assert compare(model, expected, record, name) < ATOL


@pytest.mark.parametrize("kind", [SkipGram, CBOW])
def test_negative_sampling(kind, record):
    model = noisy(kind(len(COUNTS), D, NegativeSampling(COUNTS, D, 3)))
    shape = CONTEXTS.shape if kind is SkipGram else (len(CENTERS), 1)
    noise = model.output.draw((*shape, 3), torch.Generator().manual_seed(5))
    used = noise[CONTEXTS >= 0] if kind is SkipGram else noise[:, 0]
    expected = 0.0
    for (hidden, target), drawn in zip(predictions(kind, model.vectors.weight), used, strict=True):
        scores = model.output.weight[torch.cat([torch.tensor([target]), drawn])] @ hidden
        labels = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
        expected = expected + F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")
    assert compare(model, expected, record, f"{kind.__name__}, negative sampling") < ATOL


def test_exchanged_directions_are_rejected():
    output = noisy(HierarchicalSoftmax(COUNTS, D))
    skip, bag = (kind(len(COUNTS), D, output) for kind in (SkipGram, CBOW))
    bag.vectors = skip.vectors = noisy(skip.vectors, seed=2)
    assert abs(skip(CENTERS, CONTEXTS)[0] - bag(CENTERS, CONTEXTS)[0]) > 1e-2
