"""The bidirectional model against two stacks of torch.nn.LSTM; no state sees its answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minillm.models.bilm import BiLM, BiLMConfig, LayerMix, bilm_loss
from minillm.training import adamw, train

V, D, L = 11, 6, 2


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = BiLM(BiLMConfig(V, D, L)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.4 * torch.randn_like(p))
    return model


def stacks(model):
    """Two one-way nn.LSTMs with the model's weights."""
    found = []
    for layers in (model.ahead, model.back):
        lstm = nn.LSTM(D, D, L, batch_first=True).double()
        with torch.no_grad():
            for i, layer in enumerate(layers):
                for ours, theirs in (("input", "ih"), ("recurrent", "hh")):
                    for part in ("weight", "bias"):
                        source = getattr(getattr(layer.cell, ours), part)
                        getattr(lstm, f"{part}_{theirs}_l{i}").copy_(source)
        found.append(lstm)
    return found


def expected_logits(model, tokens):
    """Logits of both directions for one text without padding."""
    ahead, back = stacks(model)
    x = model.tokens(tokens)
    after = model.output(ahead(x)[0])
    return after, model.output(back(x.flip(1))[0].flip(1))


def test_logits_and_loss_equal_two_stacks_of_torch(model):
    torch.manual_seed(1)
    tokens = torch.randint(V, (3, 7))
    ahead, back = model(tokens)
    expected = expected_logits(model, tokens)
    torch.testing.assert_close(ahead, expected[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(back, expected[1], atol=1e-10, rtol=0)
    loss, count = bilm_loss(model, tokens)
    right = F.cross_entropy(expected[0][:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    left = F.cross_entropy(expected[1][:, 1:].flatten(0, 1), tokens[:, :-1].flatten())
    assert count == 2 * 3 * 6
    assert abs(loss / 18 - right - left) < 1e-10


def test_padding_on_either_side_changes_nothing(model):
    torch.manual_seed(1)
    tokens, mask = torch.randint(V, (3, 7)), torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = mask[2, :3] = False
    layers = model.layers(tokens, mask)
    total = 0.0
    for row in range(3):
        alone = tokens[row : row + 1, mask[row]]
        torch.testing.assert_close(layers[:, row, mask[row]], model.layers(alone)[:, 0])
        total += bilm_loss(model, alone)[0]
    loss, count = bilm_loss(model, (tokens, mask))
    assert count == 2 * (6 + 3 + 3)
    torch.testing.assert_close(loss, total)


def test_no_state_sees_the_token_it_predicts(model):
    tokens = torch.arange(7)[None]
    changed = tokens.clone()
    changed[0, 3] = 9
    a, b = model.layers(tokens), model.layers(changed)
    assert torch.equal(a[..., :3, :D], b[..., :3, :D]), "forward states before the change"
    assert torch.equal(a[..., 4:, D:], b[..., 4:, D:]), "backward states after it"
    assert not torch.equal(a[1:, :, 4:, :D], b[1:, :, 4:, :D])
    assert not torch.equal(a[1:, :, :3, D:], b[1:, :, :3, D:])


def test_a_two_way_stack_would_see_it():
    """Why ELMo keeps its directions apart: in a two-way stack layer 2 knows the next token."""
    torch.manual_seed(0)
    lstm = nn.LSTM(V, D, 2, batch_first=True, bidirectional=True)
    tokens = torch.arange(7)[None]
    changed = tokens.clone()
    changed[0, 3] = 9
    a, b = (lstm(F.one_hot(x, V).float())[0] for x in (tokens, changed))
    assert not torch.equal(a[:, :3, :D], b[:, :3, :D])


def test_same_word_other_vector_above_layer_zero(model):
    layers = model.layers(torch.tensor([[1, 5, 2], [3, 5, 4]]))
    assert torch.equal(layers[0, 0, 1], layers[0, 1, 1])
    assert (layers[1:, 0, 1] - layers[1:, 1, 1]).abs().amax(-1).min() > 1e-3


def test_layer_mix_is_a_weighted_mean_times_gamma():
    layers = torch.randn(3, 2, 4, 5)
    mix = LayerMix(3)
    torch.testing.assert_close(mix(layers), layers.mean(0))
    with torch.no_grad():
        mix.w.copy_(torch.tensor([0.0, 1.0, -2.0]))
        mix.gamma.fill_(1.5)
    w = torch.tensor([1.0, 2.718281828, 2.718281828**-2])
    expected = 1.5 * sum(a * layer for a, layer in zip(w / w.sum(), layers, strict=True))
    torch.testing.assert_close(mix(layers), expected)
    sum_to = LayerMix(3)
    with torch.no_grad():
        sum_to.w.fill_(7.0)
    torch.testing.assert_close(sum_to(layers), layers.mean(0))  # a softmax, not raw weights


def test_it_learns_both_directions():
    torch.manual_seed(0)
    tokens = torch.stack([(torch.arange(12) + i) % 6 for i in range(6)])
    model = BiLM(BiLMConfig(6, 12, 1))
    records = list(
        train(model, [tokens] * 80, optimizer=adamw(model, 2e-2), steps=80, loss_fn=bilm_loss)
    )
    assert records[0].loss > 1.5
    assert records[-1].loss < 0.2


# --- named wrong versions -----------------------------------------------------------------------


def shares_one_stack(model):
    model.back = nn.ModuleList(model.back)
    for a, b in zip(model.ahead, model.back, strict=True):
        b.cell = a.cell


def reads_forwards_twice(model):
    for layer in model.back:
        layer.backwards = False


def one_layer_missing(model):
    model.ahead, model.back = model.ahead[:1], model.back[:1]


@pytest.mark.parametrize("wrong", [shares_one_stack, reads_forwards_twice, one_layer_missing])
def test_wrong_version_is_rejected(model, wrong):
    tokens = torch.randint(V, (3, 7))
    expected = expected_logits(model, tokens)
    wrong(model)
    off = [(a - b).abs().max() for a, b in zip(model(tokens), expected, strict=True)]
    assert max(off) > 1e-3
