"""Word2Vec against one pass of gensim, adaptive softmax against torch's, on noisy weights."""

import pytest
import torch
from gensim.models import Word2Vec as GensimWord2Vec
from torch import nn

from minillm.models.word2vec import CBOW, HierarchicalSoftmax, SkipGram
from minillm.nn.adaptive_softmax import AdaptiveSoftmax

COUNTS = [60, 41, 32, 22, 14, 8, 6, 2, 1]
IDS = [0, 3, 1, 0, 5, 2]
D, RATE = 6, 0.5


def one_pass(kind, perturb, seed):
    """(ours, gensim's) tables after one pass of plain SGD, window 1, hierarchical softmax."""
    ours = kind(9, D, HierarchicalSoftmax(torch.tensor(COUNTS), D)).double()
    for _ in range(3):  # N(0, 0.3) three times: scores of the size that training has
        perturb(ours, seed := seed + 1)
    theirs = GensimWord2Vec(
        [[f"w{i}"] * n for i, n in enumerate(COUNTS)],
        vector_size=D,
        window=1,
        min_count=1,
        sample=0,
        workers=1,
        epochs=1,
        hs=1,
        negative=0,
        sg=int(kind is SkipGram),
    )
    theirs.wv.vectors[:] = ours.vectors.weight.detach().float().numpy()
    theirs.syn1[:8] = ours.output.weight.detach().float().numpy()
    theirs.train(
        [[f"w{i}" for i in IDS]], total_examples=1, epochs=1, start_alpha=RATE, end_alpha=RATE
    )
    for i, center in enumerate(IDS):
        context = [IDS[j] for j in (i - 1, i + 1) if 0 <= j < len(IDS)]
        # gensim's skip-gram predicts the center from each word of the context: the same pairs
        rows = [([c], [[center]]) for c in context] if kind is SkipGram else [([center], [context])]
        for one, others in rows:
            sgd(ours, torch.tensor(one), torch.tensor(others), kind is CBOW)
    tables = torch.tensor(theirs.wv.vectors), torch.tensor(theirs.syn1[:8])
    return (ours.vectors.weight.detach(), ours.output.weight.detach()), tables


def sgd(model, centers, contexts, whole_gradient):
    loss, _ = model(centers, contexts)
    model.zero_grad()
    loss.backward()
    if whole_gradient:  # gensim's CBOW leaves out the 1 / |C| of the mean's derivative
        model.vectors.weight.grad *= contexts.shape[1]
    with torch.no_grad():
        for p in model.parameters():
            p -= RATE * p.grad


@pytest.mark.parametrize("kind", [SkipGram, CBOW])
def test_one_pass(kind, perturb, record):
    ours, theirs = one_pass(kind, perturb, 5)
    error = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    name = f"Word2Vec, {'skip-gram' if kind is SkipGram else 'CBOW'}, hierarchical softmax"
    record(name, "gensim.models.Word2Vec", "one pass of SGD (its σ is a table)", error)
    assert error < 0.03


@pytest.mark.parametrize("div_value", [2.0, 4.0])
def test_adaptive_softmax(div_value, perturb, record):
    torch.manual_seed(0)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(24, 57, [7, 19], div_value=div_value, head_bias=True)
    theirs = perturb(theirs.double(), 1)
    ours = AdaptiveSoftmax(24, 57, [7, 19], div_value=div_value, head_bias=True).double()
    ours.load_state_dict(theirs.state_dict())
    hidden, targets = torch.randn(60, 24).double(), torch.randint(57, (60,))
    inputs = [hidden.clone().requires_grad_() for _ in range(2)]
    results = [m(h, targets) for m, h in zip((ours, theirs), inputs, strict=True)]
    name, oracle = "adaptive softmax", "torch.nn.AdaptiveLogSoftmaxWithLoss"
    value = (results[0].output - results[1].output).abs().max().item()
    every = (ours.log_prob(hidden) - theirs.log_prob(hidden)).abs().max().item()
    for result in results:
        result.loss.backward()
    pairs = [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    pairs.append((inputs[0].grad, inputs[1].grad))
    gradient = max(float((a - b).abs().max()) for a, b in pairs)
    record(name, oracle, "log p of targets and of every word", max(value, every))
    record(name, oracle, "every gradient", gradient)
    assert max(value, every, gradient) < 1e-12
