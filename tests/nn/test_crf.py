"""The linear-chain CRF against brute force over all tag sequences, and against pytorch-crf."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchcrf import CRF

from minillm.nn.crf import (
    Chain,
    LinearChainCRF,
    backward_scores,
    forward_scores,
    log_partition,
    marginals,
    sequence_score,
    viterbi,
)
from minillm.nn.recurrent import lengths_mask

ATOL = 1e-10


def case(lengths=(5, 1, 3), k=3, seed=0):
    """Emissions, tags, chain and mask in float64; padding holds values that would be noticed."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = lengths_mask(list(lengths))
    emissions = noise(len(lengths), max(lengths), k).masked_fill(~mask[..., None], 7.0)
    tags = torch.randint(k, mask.shape, generator=generator).masked_fill(~mask, -1)
    return emissions, tags, Chain(noise(k), noise(k, k), noise(k)), mask


def one_score(emission, tags, chain):
    """The definition, for one text."""
    s = chain.start[tags[0]] + chain.end[tags[-1]]
    s = s + sum(emission[t, y] for t, y in enumerate(tags))
    return s + sum(chain.transition[a, b] for a, b in zip(tags, tags[1:], strict=False))


def all_scores(emissions, chain, mask):
    """For each text, {tag sequence: score}."""
    found = []
    for row, real in zip(emissions, mask, strict=True):
        n, k = int(real.sum()), row.shape[1]
        found.append({y: one_score(row, y, chain) for y in product(range(k), repeat=n)})
    return found


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    k=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_score_partition_marginals_and_viterbi_equal_brute_force(lengths, k, seed):
    emissions, tags, chain, mask = case(tuple(lengths), k, seed)
    table = all_scores(emissions, chain, mask)
    log_z = torch.stack([torch.stack(list(t.values())).logsumexp(0) for t in table])
    torch.testing.assert_close(log_partition(emissions, chain, mask), log_z, atol=ATOL, rtol=0)

    right = [t[tuple(y[m].tolist())] for t, y, m in zip(table, tags, mask, strict=True)]
    score = sequence_score(emissions, tags, chain, mask)
    torch.testing.assert_close(score, torch.stack(right), atol=ATOL, rtol=0)

    path, best = viterbi(emissions, chain, mask)
    p = marginals(emissions, chain, mask)
    for i, t in enumerate(table):
        n = int(mask[i].sum())
        winner = max(t, key=t.get)
        assert path[i].tolist() == [*winner, *[-1] * (mask.shape[1] - n)]
        assert abs(best[i] - t[winner]) < ATOL
        expected = torch.zeros_like(p[i])
        for y, s in t.items():
            for place, tag in enumerate(y):
                expected[place, tag] += (s - log_z[i]).exp()
        torch.testing.assert_close(p[i], expected, atol=ATOL, rtol=0)


def test_probabilities_of_all_sequences_sum_to_one():
    emissions, _, chain, _ = case((4,), 3)
    model = LinearChainCRF(3).double()
    _give(model, chain)
    every = torch.tensor(list(product(range(3), repeat=4)))
    nll = model(emissions.expand(len(every), -1, -1), every)
    assert (nll > 0).all()
    assert abs((-nll).exp().sum() - 1) < ATOL


def _give(model, chain):
    with torch.no_grad():
        for name, value in chain._asdict().items():
            getattr(model, name).copy_(value)


def _pair(chain):
    k = len(chain.start)
    model, oracle = LinearChainCRF(k).double(), CRF(k, batch_first=True).double()
    _give(model, chain)
    with torch.no_grad():
        oracle.start_transitions.copy_(chain.start)
        oracle.transitions.copy_(chain.transition)
        oracle.end_transitions.copy_(chain.end)
    return model, oracle


@pytest.mark.parametrize("lengths", [(5, 1, 3), (4, 4)])
def test_loss_gradients_and_decoding_equal_pytorch_crf(lengths):
    emissions, tags, chain, mask = case(lengths, 4)
    model, oracle = _pair(chain)
    mine, yours = emissions.clone().requires_grad_(), emissions.clone().requires_grad_()
    nll = model(mine, tags, mask)
    expected = -oracle(yours, tags.clamp(min=0), mask, reduction="none")
    torch.testing.assert_close(nll, expected, atol=ATOL, rtol=0)
    nll.sum().backward()
    expected.sum().backward()
    for a, b in [(mine.grad, yours.grad), (model.start.grad, oracle.start_transitions.grad),
                 (model.transition.grad, oracle.transitions.grad),
                 (model.end.grad, oracle.end_transitions.grad)]:  # fmt: skip
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, atol=ATOL, rtol=0)
    best = [row[m].tolist() for row, m in zip(model.decode(emissions, mask), mask, strict=True)]
    assert best == oracle.decode(emissions, mask)


def test_gradients_by_finite_differences():
    emissions, tags, chain, mask = case((3, 2), 2)

    def loss(emissions, start, transition, end):
        chain = Chain(start, transition, end)
        score = sequence_score(emissions, tags, chain, mask)
        return log_partition(emissions, chain, mask) - score

    torch.autograd.gradcheck(loss, [x.clone().requires_grad_() for x in (emissions, *chain)])


def test_marginals_are_the_gradient_of_the_partition():
    emissions, _, chain, mask = case()
    emissions.requires_grad_()
    log_partition(emissions, chain, mask).sum().backward()
    p = marginals(emissions.detach(), chain, mask)
    torch.testing.assert_close(emissions.grad, p, atol=ATOL, rtol=0)
    assert torch.equal(emissions.grad[~mask], torch.zeros_like(emissions.grad[~mask]))


def test_forward_and_backward_give_the_same_partition_at_every_token():
    emissions, _, chain, mask = case()
    both = forward_scores(emissions, chain, mask) + backward_scores(emissions, chain, mask)
    log_z = log_partition(emissions, chain, mask)
    every = both.logsumexp(-1)
    assert torch.allclose(every, log_z[:, None].expand_as(every), atol=ATOL)


def test_without_transitions_it_is_a_softmax_at_every_token():
    emissions, tags, _, mask = case()
    model = LinearChainCRF(3).double()
    log_p = emissions.log_softmax(-1).gather(2, tags.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(model(emissions, tags, mask), -(log_p * mask).sum(1))
    assert torch.equal(model.decode(emissions, mask)[mask], emissions.argmax(-1)[mask])


def test_what_stands_at_padding_does_not_matter():
    emissions, tags, chain, mask = case()
    model, _ = _pair(chain)
    other = torch.where(mask[..., None], emissions, -1e30)
    junk = tags.masked_fill(~mask, 2)
    assert torch.equal(model(emissions, tags, mask), model(other, junk, mask))
    assert torch.equal(model.decode(emissions, mask), model.decode(other, mask))


def test_large_scores_do_not_overflow():
    emissions, tags, chain, mask = case()
    model, _ = _pair(chain)
    assert torch.isfinite(model(emissions * 1e4, tags, mask)).all()


# --- named wrong versions: brute force must reject each of them ---------------------------------


def transposed(emissions, chain, mask):
    return log_partition(emissions, chain._replace(transition=chain.transition.T), mask)


def no_end(emissions, chain, mask):
    return log_partition(emissions, chain._replace(end=torch.zeros_like(chain.end)), mask)


def no_start(emissions, chain, mask):
    return log_partition(emissions, chain._replace(start=torch.zeros_like(chain.start)), mask)


def maximum_for_sum(emissions, chain, mask):
    return viterbi(emissions, chain, mask)[1]


def padding_is_read(emissions, chain, mask):
    return log_partition(emissions, chain, torch.ones_like(mask))


def per_token_softmax(emissions, chain, mask):
    return (emissions.logsumexp(-1) * mask).sum(1)


WRONG = [transposed, no_end, no_start, maximum_for_sum, padding_is_read, per_token_softmax]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_partition_is_rejected(wrong):
    emissions, _, chain, mask = case()
    table = all_scores(emissions, chain, mask)
    expected = torch.stack([torch.stack(list(t.values())).logsumexp(0) for t in table])
    assert (wrong(emissions, chain, mask) - expected).abs().max() > 1e-2


def greedy(emissions, chain, mask):
    """The best next tag, one after the other, with no look back."""
    tags = [(chain.start + emissions[:, 0]).argmax(-1)]
    for t in range(1, emissions.shape[1]):
        tags.append((chain.transition[tags[-1]] + emissions[:, t]).argmax(-1))
    return torch.stack(tags, 1)


def best_tag_each(emissions, chain, mask):
    return marginals(emissions, chain, mask).argmax(-1)


def emissions_only(emissions, chain, mask):
    return emissions.argmax(-1)


@pytest.mark.parametrize("wrong", [greedy, best_tag_each, emissions_only])
def test_wrong_decoding_is_rejected(wrong):
    emissions, _, chain, mask = case((6,) * 40, 4)
    right = viterbi(emissions, chain, mask)[0]
    assert (wrong(emissions, chain, mask) != right).any(1).float().mean() > 0.1
