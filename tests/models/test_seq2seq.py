"""Sequence to sequence against torch's GRU and cells with attention written out, step by step.

No library has this very model; the encoder and the decoder's cell are torch's, the attention is its
definition (tests/nn/test_additive_attention.py), and the wiring is written here a second time.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minillm.models.seq2seq import LastStates, Seq2Seq, Seq2SeqConfig
from minillm.nn.recurrent import lengths_mask
from minillm.training import adamw, train

D, V, W = 6, 13, 9


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(V, W, D)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def copied(cell, module, name=""):
    with torch.no_grad():
        for ours, theirs in (("input", "ih"), ("recurrent", "hh")):
            for part in ("weight", "bias"):
                getattr(module, f"{part}_{theirs}{name}").copy_(getattr(getattr(cell, ours), part))
    return module


def by_hand(model, source, target, lengths, keep=None):
    """Logits and weights, row by row, from torch.nn.GRU and GRUCell; `keep` collects modules."""
    gru = nn.GRU(D, D, batch_first=True, bidirectional=True).double()
    copied(model.encoder.layers[0].cell, gru, "_l0")
    copied(model.encoder.layers[1].cell, gru, "_l0_reverse")
    cell = copied(model.decoder, nn.GRUCell(3 * D, D).double())
    a, logits, weights = model.context, [], []
    for row, n in enumerate(lengths):
        keys, last = gru(model.source(source[row : row + 1, :n]))
        state = torch.tanh(model.bridge(torch.cat([last[0], last[1]], dim=-1)))
        for token in target[row]:
            e = torch.tanh(a.query(state) + a.key(keys[0])) @ a.score.weight[0]
            alpha = e.softmax(0)
            context = alpha @ keys[0]
            y = model.target(token)
            state = cell(torch.cat([y, context])[None], state)
            logits.append(model.output(torch.cat([state[0], context, y])))
            weights.append(F.pad(alpha, (0, source.shape[1] - n)))
    if keep is not None:
        keep.extend([gru, cell])
    b, t = target.shape
    return torch.stack(logits).view(b, t, -1), torch.stack(weights).view(b, t, -1)


def batch(seed=1):
    generator = torch.Generator().manual_seed(seed)
    lengths = [7, 3, 5]
    source = torch.randint(V, (3, 7), generator=generator)
    return source, torch.randint(W, (3, 4), generator=generator), lengths


def test_logits_weights_and_gradients_equal_the_model_written_out(model):
    source, target, lengths = batch()
    mask = lengths_mask(lengths)
    modules = []
    expected, alphas = by_hand(model, source, target, lengths, modules)
    logits, weights = model(source, target, source_mask=mask)
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(weights, alphas, atol=1e-10, rtol=0)

    probe = torch.randn_like(logits)
    model.zero_grad()
    (logits * probe).sum().backward()
    mine = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    (expected * probe).sum().backward()
    gru, cell = modules
    for name, p in model.named_parameters():
        if name.startswith(("encoder", "decoder")):
            continue
        assert p.grad.abs().max() > 1e-6
        torch.testing.assert_close(mine[name], p.grad, atol=1e-10, rtol=0)
    for prefix, module, end in [
        ("encoder.layers.0.cell", gru, "_l0"), ("encoder.layers.1.cell", gru, "_l0_reverse"),
        ("decoder", cell, ""),
    ]:  # fmt: skip
        for ours, theirs in (("input", "ih"), ("recurrent", "hh")):
            for part in ("weight", "bias"):
                grad = getattr(module, f"{part}_{theirs}{end}").grad
                torch.testing.assert_close(
                    mine[f"{prefix}.{ours}.{part}"], grad, atol=1e-10, rtol=0
                )


def test_padding_on_the_left_is_as_good_as_on_the_right(model):
    source, target, lengths = batch()
    mask = lengths_mask(lengths)
    left, left_mask = source.clone(), mask.flip(1)
    for row, n in enumerate(lengths):
        left[row] = source[row].roll(7 - n)
    for context in (model.context, LastStates(D, 2 * D, D)):
        model.context = context
        right = model(source, target, source_mask=mask)[0]
        torch.testing.assert_close(model(left, target, source_mask=left_mask)[0], right)


def test_without_attention_the_decoder_sees_the_two_last_states(model):
    source, target, lengths = batch()
    model.context = LastStates(D, 2 * D, D)
    keys, _ = model.encode(source, lengths_mask(lengths))
    seen, weights = model.context(torch.zeros(3, D).double(), keys, keys, lengths_mask(lengths))
    _, last = model.encoder(model.source(source), mask=lengths_mask(lengths))
    assert torch.equal(seen, torch.cat([last[0][0], last[1][0]], dim=-1))
    assert (weights == 0).all()


def test_greedy_decoding_is_the_best_token_each_time_and_stops(model):
    source, _, lengths = batch()
    mask = lengths_mask(lengths)
    tokens, weights = model.translate(
        source, begin_id=0, end_id=1, max_new_tokens=12, source_mask=mask
    )
    assert weights.shape == (*tokens.shape, 7)
    fed = F.pad(tokens, (1, 0))[:, :-1]
    best = model(source, fed, source_mask=mask)[0].argmax(-1)
    for row in range(3):
        ended = (tokens[row] == 1).nonzero()
        n = int(ended[0]) + 1 if len(ended) else tokens.shape[1]
        assert torch.equal(tokens[row, :n], best[row, :n])
        assert (tokens[row, n:] == 1).all()


def test_it_learns_to_reverse():
    torch.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(8, 8, 24))
    generator = torch.Generator().manual_seed(0)

    def example():
        source = torch.randint(2, 8, (32, 5), generator=generator)
        return source, F.pad(source.flip(1), (1, 1), value=0)

    def loss_fn(model, batch):
        source, target = batch
        logits, _ = model(source, target[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), reduction="sum")
        return loss, target[:, 1:].numel()

    batches = [example() for _ in range(150)]
    list(train(model, batches, optimizer=adamw(model, 1e-2), steps=150, loss_fn=loss_fn))
    source, target = example()
    tokens, weights = model.translate(source, begin_id=0, end_id=0, max_new_tokens=6)
    assert (tokens[:, :5] == target[:, 1:6]).float().mean() > 0.9
    assert weights.shape == (32, tokens.shape[1], 5)


# --- named wrong versions -----------------------------------------------------------------------


class AsksWithTheNewState(Seq2Seq):
    """Luong's order: the state is updated first, and then asks."""

    def step(self, token, state, keys, prepared, mask=None):
        x = self.target(token)
        old, _ = self.context(state, keys, prepared, mask)
        (state,) = self.decoder.step(self.decoder.input(torch.cat([x, old], -1)), (state,))
        context, weights = self.context(state, keys, prepared, mask)
        return self.output(torch.cat([state, context, x], dim=-1)), state, weights


class ForgetsTheMask(Seq2Seq):
    def step(self, token, state, keys, prepared, mask=None):
        return super().step(token, state, keys, prepared, None)


class StartsFromZero(Seq2Seq):
    def encode(self, source, mask=None):
        keys, state = super().encode(source, mask)
        return keys, torch.zeros_like(state)


@pytest.mark.parametrize("wrong", [AsksWithTheNewState, ForgetsTheMask, StartsFromZero])
def test_wrong_version_is_rejected(model, wrong):
    source, target, lengths = batch()
    other = wrong(model.config).double()
    other.load_state_dict(model.state_dict())
    logits, _ = other(source, target, source_mask=lengths_mask(lengths))
    assert (logits - by_hand(model, source, target, lengths)[0]).abs().max() > 1e-3
