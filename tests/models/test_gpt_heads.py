"""Task heads: sequences as the paper writes them, padding, dropout, the auxiliary loss at work."""

import math

import pytest
import torch
import torch.nn.functional as F

from minillm.models.gpt import gpt1, gpt2
from minillm.models.gpt_heads import (
    TaskTokens,
    fine_tuning_loss,
    gpt2_choices,
    gpt2_classifier,
    multiple_choice,
    text_classifier,
)

SIZES = {"vocab_size": 31, "max_seq_len": 19, "d_model": 12, "n_layers": 2, "n_heads": 3}


def noisy(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.double().eval()


def batch(r=2, b=3, t=9):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(31, (b, r, t), generator=generator)
    mask = torch.arange(t) < torch.randint(3, t + 1, (b, r, 1), generator=generator)
    return tokens, mask, torch.tensor([1, 0, 1])


def test_sequences_are_those_of_figure_1():
    task = TaskTokens(start=100, delimiter=101, extract=102)
    assert task.text([1, 2]) == [[100, 1, 2, 102]]
    assert task.entailment([1, 2], [3]) == [[100, 1, 2, 101, 3, 102]]
    assert task.similarity([1], [2]) == [[100, 1, 101, 2, 102], [100, 2, 101, 1, 102]]
    assert task.choices([1], [[2], [3, 4]]) == [[100, 1, 101, 2, 102], [100, 1, 101, 3, 4, 102]]


@pytest.mark.parametrize("preset", [gpt2_classifier, gpt2_choices])
def test_padding_and_neighbors_change_nothing(preset):
    model = noisy(preset(**SIZES))
    tokens, mask, _ = batch()
    whole = model(tokens, mask)
    scores, logits = model.both(tokens, mask)
    assert torch.equal(scores, whole)
    assert torch.equal(model(tokens.masked_fill(~mask, 7), mask), whole)
    for b in range(3):
        torch.testing.assert_close(model(tokens[b : b + 1], mask[b : b + 1]), whole[b : b + 1])
    shifted = torch.zeros_like(tokens)  # the same texts with their padding on the left
    left = torch.zeros_like(mask)
    for b in range(3):
        for r in range(2):
            n = int(mask[b, r].sum())
            shifted[b, r, -n:], left[b, r, -n:] = tokens[b, r, :n], True
    torch.testing.assert_close(model(shifted, left), whole, atol=1e-10, rtol=0)
    assert logits.shape == (*tokens.shape, 31)


def test_a_pair_scores_the_same_in_either_order():
    model = noisy(gpt2_classifier(**SIZES))
    tokens, mask, _ = batch()
    torch.testing.assert_close(model(tokens.flip(1), mask.flip(1)), model(tokens, mask))


def test_choices_are_permuted_with_their_sequences():
    model = noisy(gpt2_choices(**SIZES))
    tokens, mask, _ = batch()
    found, right = model(tokens.flip(1), mask.flip(1)), model(tokens, mask).flip(1)
    torch.testing.assert_close(found, right, atol=1e-10, rtol=0)


def by_hand(model, tokens, mask, labels, aux):
    """Eq. 5 text by text: -log p(y) + λ · the mean loss over a text's own tokens."""
    total = 0.0
    for b in range(len(labels)):
        rows = [tokens[b, r][mask[b, r]][None] for r in range(tokens.shape[1])]
        states = torch.cat([model.lm.hidden(row)[:, -1] for row in rows])[None]
        total = total - model.combine(states, model.score).log_softmax(-1)[0, labels[b]]
        losses = [F.cross_entropy(model.lm(row)[0, :-1], row[0, 1:]) for row in rows]
        total = total + aux * sum(losses) / len(losses)
    return total


@pytest.mark.parametrize("preset", [gpt2_classifier, gpt2_choices])
@pytest.mark.parametrize("aux", [0, 0.5, 2.0])
def test_loss_is_equation_5_text_by_text(preset, aux):
    model = noisy(preset(**SIZES))
    tokens, mask, labels = batch()
    loss, n = fine_tuning_loss(model, (tokens, mask, labels), aux_weight=aux)
    assert n == 3
    right = by_hand(model, tokens, mask, labels, aux)
    torch.testing.assert_close(loss, right, atol=1e-9, rtol=0)


def test_gradients_of_parts_of_a_batch_add_up():
    """So a batch may be cut into pieces (accumulation) and the update stays the same."""
    model = noisy(gpt2_choices(**SIZES))
    whole = batch()
    parts = [tuple(x[i : i + 1] for x in whole) for i in range(3)]
    losses = [fine_tuning_loss(model, part)[0] for part in parts]
    torch.testing.assert_close(sum(losses), fine_tuning_loss(model, whole)[0])


def test_dropout_acts_on_the_states_while_training_only():
    lm = noisy(gpt1(**SIZES))
    model = text_classifier(lm, 2, dropout=0.5).double()
    tokens, mask, _ = batch(r=1)
    model.train()
    one, two = model(tokens, mask), model(tokens, mask)
    assert not torch.equal(one, two)
    model.eval()
    assert torch.equal(model(tokens, mask), model(tokens, mask))


def test_new_layers_start_near_zero_and_the_language_model_is_the_one_given():
    torch.manual_seed(0)
    lm = gpt1(**SIZES | {"d_model": 96})
    model = text_classifier(lm, 50)
    assert model.lm is lm
    assert abs(model.score.weight.std().item() - 0.02) < 2e-3
    assert model.score.bias is None
    choices = multiple_choice(lm)
    assert choices.score.weight.shape == (1, 96)
    assert choices.score.bias.item() == 0


def test_it_learns_and_the_auxiliary_loss_keeps_the_language_model():
    """Which of two letters came more often? The texts' own order is a cycle that λ preserves."""
    torch.manual_seed(0)
    tokens = (torch.arange(9) + torch.randint(6, (64, 1))) % 6
    labels = (tokens[:, 0] > 2).long()
    data = tokens[:, None], torch.ones(64, 1, 9, dtype=torch.bool), labels
    spoiled = {}
    for aux in (0, 0.5):
        torch.manual_seed(1)
        model = text_classifier(gpt2(**SIZES), 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            loss, n = fine_tuning_loss(model, data, aux_weight=aux)
            (loss / n).backward()
            optimizer.step()
        assert (model(*data[:2]).argmax(1) == labels).double().mean() > 0.95
        logits = model.both(*data[:2])[1][:, 0, 3:-1]
        spoiled[aux] = F.cross_entropy(logits.flatten(0, 1), tokens[:, 4:].flatten()).item()
    assert spoiled[0.5] < 0.3 < math.log(6) - 0.3 < spoiled[0]


def test_mistakes_are_explained():
    model = noisy(gpt2_classifier(**SIZES))
    tokens, mask, labels = batch()
    empty = mask.clone()
    empty[1, 1] = False
    with pytest.raises(ValueError, match="at least one real token"):
        model(tokens, empty)
    with pytest.raises(ValueError, match="aux_weight must be 0 or more"):
        fine_tuning_loss(model, (tokens, mask, labels), aux_weight=-1.0)
    with pytest.raises(ValueError, match="n_classes must be"):
        text_classifier(gpt2(**SIZES), 0)
