"""Sequence to sequence with additive attention: torch's GRUs, the attention written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minillm.models.seq2seq import Seq2Seq, Seq2SeqConfig
from minillm.nn.recurrent import lengths_mask

D, V, W, ATOL = 10, 23, 19, 1e-9
LENGTHS = [9, 4, 6]


def cells(model):
    return model.encoder.layers[0].cell, model.encoder.layers[1].cell, model.decoder


class Oracle(nn.Module):
    """Rows one at a time: torch.nn.GRU both ways, then torch.nn.GRUCell and weighted means."""

    def __init__(self, model):
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True, bidirectional=True).double()
        self.cell = nn.GRUCell(3 * D, D).double()
        self.rest = model
        with torch.no_grad():
            for mine, theirs in self.named(model):
                theirs.copy_(mine)

    def named(self, model):
        ends = ((self.gru, "_l0"), (self.gru, "_l0_reverse"), (self.cell, ""))
        for cell, (module, end) in zip(cells(model), ends, strict=True):
            for ours, theirs in (("input", "ih"), ("recurrent", "hh")):
                for part in ("weight", "bias"):
                    yield (
                        getattr(getattr(cell, ours), part),
                        getattr(module, f"{part}_{theirs}{end}"),
                    )

    def forward(self, source, target):
        m, logits = self.rest, []
        for row, n in enumerate(LENGTHS):
            keys, last = self.gru(m.source(source[row : row + 1, :n]))
            state = torch.tanh(m.bridge(torch.cat([last[0], last[1]], dim=-1)))
            for token in target[row]:
                scores = torch.tanh(m.context.query(state) + m.context.key(keys[0]))
                context = (scores @ m.context.score.weight[0]).softmax(0) @ keys[0]
                y = m.target(token)
                state = self.cell(torch.cat([y, context])[None], state)
                logits.append(m.output(torch.cat([state[0], context, y])))
        return torch.stack(logits).view(len(LENGTHS), -1, W)


@pytest.fixture
def case(perturb):
    torch.manual_seed(0)
    model = perturb(Seq2Seq(Seq2SeqConfig(V, W, D)).double(), seed=1)
    return model, torch.randint(V, (3, 9)), torch.randint(W, (3, 5)), lengths_mask(LENGTHS)


def test_logits_loss_and_every_gradient(case, record):
    model, source, target, mask = case
    theirs = Oracle(model)
    logits, labels = model(source, target, source_mask=mask)[0], target.roll(1, 1)
    loss = F.cross_entropy(logits.mT, labels)
    loss.backward()
    mine = {name: p.grad for name, p in model.named_parameters()}
    recurrent = [(m.grad, t) for m, t in theirs.named(model)]
    model.zero_grad()
    expected = theirs(source, target)
    right = F.cross_entropy(expected.mT, labels)
    right.backward()
    pairs = [(m, t.grad) for m, t in recurrent]
    pairs += [(mine[n], p.grad) for n, p in model.named_parameters() if p.grad is not None]
    assert len(pairs) == len(mine) > 15
    assert min(b.abs().max() for _, b in pairs) > 1e-7, "a gradient that says nothing"
    found = {
        "logits": (logits - expected).abs().max(),
        "loss": abs(loss - right),
        "gradients": max((a - b).abs().max() for a, b in pairs),
    }
    for check, error in found.items():
        record("sequence to sequence with attention", "torch.nn.GRU", check, error)
        assert error < ATOL, check


@pytest.mark.parametrize("wrong", ["directions", "mask", "score"])
def test_wrong_versions_are_rejected(case, wrong):
    model, source, target, mask = case
    expected = Oracle(model)(source, target)
    if wrong == "directions":
        layers = model.encoder.layers
        layers[0].cell, layers[1].cell = layers[1].cell, layers[0].cell
    elif wrong == "mask":
        mask = torch.ones_like(mask)
    else:
        model.context.score.weight.data.neg_()
    logits = model(source, target, source_mask=mask)[0]
    assert (logits - expected).abs().max() > 1e-3
