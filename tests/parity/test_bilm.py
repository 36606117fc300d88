"""The bidirectional language model against two stacks of torch.nn.LSTM, noise on every weight."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minillm.models.bilm import BiLM, BiLMConfig, bilm_loss

V, D, L, ATOL = 29, 12, 3, 1e-9


class Oracle(nn.Module):
    """One stack reads the text, one reads it from its end; both share vectors and output."""

    def __init__(self, model):
        super().__init__()
        self.tokens, self.output = copy.deepcopy((model.tokens, model.output))
        self.output.weight = self.tokens.weight
        self.stacks = nn.ModuleList(nn.LSTM(D, D, L, batch_first=True).double() for _ in range(2))
        with torch.no_grad():
            for stack, layers in zip(self.stacks, (model.ahead, model.back), strict=True):
                for name, theirs, cell, part in named(stack, layers):
                    theirs.copy_(getattr(getattr(cell, name), part))

    def forward(self, tokens):
        x = self.tokens(tokens)
        ahead, back = self.stacks[0](x)[0], self.stacks[1](x.flip(1))[0].flip(1)
        return self.output(ahead), self.output(back)


def named(stack, layers):
    for i, layer in enumerate(layers):
        for name, theirs in (("input", "ih"), ("recurrent", "hh")):
            for part in ("weight", "bias"):
                yield name, getattr(stack, f"{part}_{theirs}_l{i}"), layer.cell, part


@pytest.fixture
def model(perturb):
    torch.manual_seed(0)
    return perturb(BiLM(BiLMConfig(V, D, L)).double(), seed=1)


def test_logits_loss_and_every_gradient(model, record):
    theirs, tokens = Oracle(model), torch.randint(V, (3, 11))
    expected = theirs(tokens)
    right = F.cross_entropy(expected[0][:, :-1].mT, tokens[:, 1:], reduction="sum")
    right = right + F.cross_entropy(expected[1][:, 1:].mT, tokens[:, :-1], reduction="sum")
    right.backward()
    loss, count = bilm_loss(model, tokens)
    loss.backward()
    assert count == 2 * 3 * 10
    pairs = [(theirs.tokens.weight.grad, model.tokens.weight.grad)]
    pairs.append((theirs.output.bias.grad, model.output.bias.grad))
    for stack, layers in zip(theirs.stacks, (model.ahead, model.back), strict=True):
        for name, p, cell, part in named(stack, layers):
            pairs.append((p.grad, getattr(getattr(cell, name), part).grad))
    assert len(pairs) == len(list(model.parameters()))
    assert min(a.abs().max() for a, _ in pairs) > 1e-6, "a gradient that says nothing"
    found = {
        "logits": max((a - b).abs().max() for a, b in zip(model(tokens), expected, strict=True)),
        "loss": abs(loss - right) / count,
        "gradients": max((a - b).abs().max() for a, b in pairs) / count,
    }
    for check, error in found.items():
        record("bidirectional LSTM language model", "torch.nn.LSTM", check, error)
        assert error < ATOL, check


def test_exchanged_directions_are_rejected(model):
    theirs, tokens = Oracle(model), torch.randint(V, (3, 11))
    model.ahead, model.back = model.back, model.ahead
    assert (model(tokens)[0] - theirs(tokens)[0]).abs().max() > 1e-3
