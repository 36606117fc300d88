"""Adaptive softmax against torch's own: values, gradients, every word; and named wrong versions."""

import pytest
import torch
from torch import nn

from minillm.nn.adaptive_softmax import (
    AdaptiveSoftmax,
    cluster_widths,
    expected_flops,
)

D, VOCAB, CUTS = 24, 57, [7, 19, 38]


def pair(div_value=2.0, head_bias=True, cutoffs=CUTS, vocab=VOCAB, kind=AdaptiveSoftmax):
    """(ours, theirs) with the same noisy weights, in float64."""
    torch.manual_seed(1)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(
        D, vocab, cutoffs, div_value=div_value, head_bias=head_bias
    ).double()
    with torch.no_grad():
        for p in theirs.parameters():
            p += 0.3 * torch.randn_like(p)
    ours = kind(D, vocab, cutoffs, div_value=div_value, head_bias=head_bias).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def batch(n=40, vocab=VOCAB, below=None):
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(n, D, dtype=torch.float64, generator=generator)
    return hidden, torch.randint(below or vocab, (n,), generator=generator)


@pytest.mark.parametrize("head_bias", [False, True])
@pytest.mark.parametrize("div_value", [1.0, 2.0, 2.7])
@pytest.mark.parametrize("below", [VOCAB, 7, 8], ids=["all", "head only", "one rare"])
def test_equals_torch(div_value, head_bias, below):
    ours, theirs = pair(div_value, head_bias)
    (h1, targets), (h2, _) = batch(below=below), batch(below=below)
    h1.requires_grad_(), h2.requires_grad_()
    mine, other = ours(h1, targets), theirs(h2, targets)
    torch.testing.assert_close(mine.output, other.output, atol=1e-11, rtol=0)
    torch.testing.assert_close(mine.loss, other.loss, atol=1e-11, rtol=0)
    (mine.loss + mine.output[3]).backward(), (other.loss + other.output[3]).backward()
    torch.testing.assert_close(h1.grad, h2.grad, atol=1e-11, rtol=0)
    grads = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        expected = grads[name].grad
        if p.grad is None or expected is None:  # a cluster without targets was not computed
            assert all(g is None or not g.any() for g in (p.grad, expected)), name
        else:
            torch.testing.assert_close(p.grad, expected, atol=1e-11, rtol=0)


def test_every_word_and_the_sum():
    ours, theirs = pair()
    hidden, targets = batch()
    log_p = ours.log_prob(hidden)
    torch.testing.assert_close(log_p, theirs.log_prob(hidden), atol=1e-11, rtol=0)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(40).double(), atol=1e-12, rtol=0)
    assert torch.equal(ours.predict(hidden), theirs.predict(hidden))
    chosen = log_p.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(ours(hidden, targets).output, chosen, atol=1e-12, rtol=0)


def test_a_cluster_without_targets_is_not_computed():
    ours, _ = pair()
    calls = []
    for i, cluster in enumerate(ours.tail):
        cluster.register_forward_hook(lambda *a, i=i: calls.append((i, len(a[1][0]))))
    hidden, _ = batch(6)
    ours(hidden, torch.tensor([0, 3, 6, 7, 18, 38]))
    assert calls == [(0, 2), (2, 1)]  # two targets in the first cluster, none in the second


class TailAlone(AdaptiveSoftmax):
    """Wrong: a rare word's probability within its cluster, without the cluster's own."""

    def log_prob(self, hidden):
        tails = [cluster(hidden).log_softmax(-1) for cluster in self.tail]
        head = self.head(hidden).log_softmax(-1)
        return torch.cat([head[:, : self.cutoffs[0]], *tails], dim=1)


class ClusterEntriesReversed(AdaptiveSoftmax):
    """Wrong: the head's cluster entries in the opposite order. It sums to 1, too."""

    def log_prob(self, hidden):
        first, head = self.cutoffs[0], self.head(hidden).log_softmax(-1)
        tails = [
            head[:, -1 - i, None] + cluster(hidden).log_softmax(-1)
            for i, cluster in enumerate(self.tail)
        ]
        return torch.cat([head[:, :first], *tails], dim=1)


class HeadWithoutClusters(AdaptiveSoftmax):
    """Wrong: the head's words are normalized among themselves."""

    def log_prob(self, hidden):
        first = self.cutoffs[0]
        good = super().log_prob(hidden)
        return torch.cat([good[:, :first].log_softmax(-1), good[:, first:]], dim=1)


@pytest.mark.parametrize("kind", [TailAlone, ClusterEntriesReversed, HeadWithoutClusters])
def test_wrong_versions_are_rejected(kind):
    ours, theirs = pair(kind=kind)
    hidden, _ = batch()
    assert (ours.log_prob(hidden) - theirs.log_prob(hidden)).abs().max() > 1e-2


def test_expected_flops_counts_matrix_products():
    from torch.utils.flop_counter import FlopCounterMode

    counts = torch.arange(VOCAB, 0, -1)
    ours, _ = pair(head_bias=False)
    one_each = torch.cat([torch.full((int(c),), w) for w, c in enumerate(counts)])
    hidden = torch.randn(len(one_each), D).double()
    with FlopCounterMode(display=False) as counter:
        ours(hidden, one_each)
    expected = expected_flops(D, counts, CUTS, div_value=2.0) * len(one_each)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cutoffs", [[], [0, 5], [5, 5], [9, 4], [5, VOCAB]])
def test_bad_cutoffs(cutoffs):
    with pytest.raises(ValueError, match="cutoffs"):
        AdaptiveSoftmax(D, VOCAB, cutoffs)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="div_value"):
        cluster_widths(16, 3, 4.0)
    ours, _ = pair()
    hidden, _ = batch(2)
    with pytest.raises(ValueError, match="57"):
        ours(hidden, torch.tensor([0, VOCAB]))
    with pytest.raises(ValueError, match="vocabulary"):
        ours(hidden, torch.tensor([-1, 3]))
