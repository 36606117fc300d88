"""The linear-chain CRF against pytorch-crf and brute force, in float64: rows for the book."""

from itertools import product

import pytest
import torch
from torchcrf import CRF

from minillm.nn.crf import LinearChainCRF, log_partition, marginals, viterbi
from minillm.nn.recurrent import lengths_mask

ATOL = 1e-9


@pytest.fixture
def case(perturb):
    oracle = perturb(CRF(5, batch_first=True).double(), seed=1)
    model = LinearChainCRF(5).double()
    with torch.no_grad():
        model.start.copy_(oracle.start_transitions)
        model.transition.copy_(oracle.transitions)
        model.end.copy_(oracle.end_transitions)
    generator = torch.Generator().manual_seed(2)
    mask = lengths_mask([5, 2, 4])
    emissions = 2 * torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    return model, oracle, emissions, torch.randint(5, (3, 5), generator=generator), mask


@pytest.mark.parametrize("padding", ["plain", "right padding"])
def test_loss_and_every_gradient(case, padding, record):
    model, oracle, emissions, tags, mask = case
    mask = mask if padding == "right padding" else torch.ones_like(mask)
    mine, yours = emissions.clone().requires_grad_(), emissions.clone().requires_grad_()
    loss, expected = model(mine, tags, mask).sum(), -oracle(yours, tags, mask)
    loss.backward()
    expected.backward()
    pairs = [(mine.grad, yours.grad), (model.start.grad, oracle.start_transitions.grad),
             (model.transition.grad, oracle.transitions.grad),
             (model.end.grad, oracle.end_transitions.grad)]  # fmt: skip
    error = max((a - b).abs().max().item() for a, b in pairs)
    record("crf", "torchcrf.CRF", f"loss, {padding}", abs(loss - expected).item())
    record("crf", "torchcrf.CRF", f"gradients, {padding}", error)
    assert abs(loss - expected) < ATOL
    assert error < ATOL


def test_partition_marginals_and_best_score_by_brute_force(case, record):
    model, _, emissions, _, mask = case
    model.requires_grad_(False)
    log_z, p = log_partition(emissions, model.chain, mask), marginals(emissions, model.chain, mask)
    best = viterbi(emissions, model.chain, mask)[1]
    off = {"log Z": [], "marginals": [], "Viterbi's score": []}
    for i, n in enumerate(mask.sum(1).tolist()):
        every = torch.tensor(list(product(range(5), repeat=n)))
        place = torch.arange(n).expand_as(every)
        score = model.start[every[:, 0]] + emissions[i][place, every].sum(1)
        score = score + model.end[every[:, -1]]
        score = score + model.transition[every[:, :-1], every[:, 1:]].sum(1)
        weight = score.softmax(0)
        expected = torch.zeros(5, 5, dtype=torch.float64)
        for t in range(n):
            expected[t].index_add_(0, every[:, t], weight)
        off["log Z"].append(log_z[i] - score.logsumexp(0))
        off["marginals"].append((p[i] - expected).abs().max())
        off["Viterbi's score"].append(best[i] - score.max())
    for check, errors in off.items():
        error = max(abs(float(e)) for e in errors)
        record("crf", "brute force", check, error)
        assert error < ATOL
