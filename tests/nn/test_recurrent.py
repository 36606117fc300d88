"""RNN, LSTM and GRU: equal to torch.nn's in float64, gradients too; padding, borders, directions.

The oracle for padding is `pack_padded_sequence` (right) and each row alone (left).
"""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from minillm.nn.recurrent import (
    Cell,
    GRUCell,
    LSTMCell,
    Recurrent,
    RecurrentLayer,
    RNNCell,
    detached,
    lengths_mask,
)

PAIRS = {"rnn": (RNNCell, nn.RNN), "lstm": (LSTMCell, nn.LSTM), "gru": (GRUCell, nn.GRU)}
ATOL = 1e-10
B, T, D, N = 3, 7, 5, 4


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def make(kind, n_layers=2, bidirectional=False, cell=None):
    """(ours, theirs) with the same noise on every weight."""
    ours, theirs = PAIRS[kind]
    oracle = theirs(D, N, n_layers, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for p in oracle.parameters():
            p.copy_(0.6 * torch.randn_like(p))
    model = Recurrent(cell or ours, D, N, n_layers, bidirectional=bidirectional)
    model.load_torch(oracle.state_dict())
    return model, oracle


def flat(state):
    """Torch's states (h, or h and c; each "l b n") in our order."""
    parts = state if isinstance(state, tuple) else (state,)
    return tuple(tuple(part[i] for part in parts) for i in range(parts[0].shape[0]))


def gradients(model):
    """Our gradients under torch's names."""
    found = {}
    for j, layer in enumerate(model.layers):
        i, way = divmod(j, 2) if model.bidirectional else (j, 0)
        for ours, theirs in (("input", "ih"), ("recurrent", "hh")):
            for part in ("weight", "bias"):
                name = f"{part}_{theirs}_l{i}" + "_reverse" * way
                found[name] = getattr(getattr(layer.cell, ours), part).grad
    return found


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", PAIRS)
def test_outputs_states_and_every_gradient_equal_torch(kind, n_layers, bidirectional):
    model, oracle = make(kind, n_layers, bidirectional)
    ways = n_layers * (1 + bidirectional)
    x, weights = torch.randn(B, T, D), torch.randn(B, T, N * (1 + bidirectional))
    parts = torch.randn(1 if kind != "lstm" else 2, ways, B, N)
    first = tuple(parts) if kind == "lstm" else parts[0]
    mine, yours = x.clone().requires_grad_(), x.clone().requires_grad_()

    out, state = model(mine, flat(first))
    expected, last = oracle(yours, first)
    assert torch.allclose(out, expected, atol=ATOL, rtol=0)
    for a, b in zip(state, flat(last), strict=True):
        assert all(torch.allclose(p, q, atol=ATOL, rtol=0) for p, q in zip(a, b, strict=True))

    ends = sum(p.sin().sum() for cell in state for p in cell)
    ((out * weights).sum() + ends).backward()
    ends = sum(p.sin().sum() for cell in flat(last) for p in cell)
    ((expected * weights).sum() + ends).backward()
    assert torch.allclose(mine.grad, yours.grad, atol=ATOL, rtol=0)
    found = gradients(model)
    assert found.keys() == dict(oracle.named_parameters()).keys()
    for name, p in oracle.named_parameters():
        assert p.grad.abs().max() > 1e-6
        assert torch.allclose(found[name], p.grad, atol=ATOL, rtol=0), name


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", PAIRS)
def test_right_padding_equals_packed_sequences(kind, bidirectional):
    model, oracle = make(kind, 2, bidirectional)
    lengths = [7, 2, 5]
    x = torch.randn(B, T, D)
    out, state = model(x, mask=lengths_mask(lengths))
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    expected, last = oracle(packed)
    expected, _ = pad_packed_sequence(expected, batch_first=True, total_length=T)
    assert torch.allclose(out, expected, atol=ATOL, rtol=0)
    for a, b in zip(state, flat(last), strict=True):
        assert all(torch.allclose(p, q, atol=ATOL, rtol=0) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", PAIRS)
def test_left_padding_equals_each_row_alone(kind, bidirectional):
    model, oracle = make(kind, 2, bidirectional)
    x, mask = torch.randn(B, T, D), torch.ones(B, T, dtype=torch.bool)
    mask[1, :4] = mask[2, :1] = False
    x = x.masked_fill(~mask[..., None], 99.0)
    out, state = model(x, mask=mask)
    for row in range(B):
        expected, last = oracle(x[row : row + 1][:, mask[row]])
        assert torch.allclose(out[row, mask[row]], expected[0], atol=ATOL, rtol=0)
        assert (out[row, ~mask[row]] == 0).all()
        for a, b in zip(state, flat(last), strict=True):
            same = (torch.allclose(p[row], q[0], atol=ATOL) for p, q in zip(a, b, strict=True))
            assert all(same)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_text_in_pieces_gives_the_same_as_in_one(kind):
    model, oracle = make(kind)
    x = torch.randn(B, T, D)
    state, pieces = None, []
    for part in (x[:, :1], x[:, 1:5], x[:, 5:]):
        out, state = model(part, state)
        pieces.append(out)
    assert torch.allclose(torch.cat(pieces, 1), oracle(x)[0], atol=ATOL, rtol=0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", PAIRS)
def test_nothing_crosses_the_border_of_two_documents(kind, bidirectional):
    model, oracle = make(kind, 2, bidirectional)
    x = torch.randn(2, T, D)
    starts = torch.zeros(2, T, dtype=torch.bool)
    starts[0, 3] = starts[1, 0] = starts[1, 5] = True
    out, _ = model(x, starts=starts)
    for row, border in ((0, 3), (1, 5)):
        one, two = oracle(x[row : row + 1, :border])[0], oracle(x[row : row + 1, border:])[0]
        expected = torch.cat([one, two], dim=1)[0]
        assert torch.allclose(out[row], expected, atol=ATOL, rtol=0)


def test_a_forward_network_cannot_see_ahead_and_a_two_way_one_can():
    x = torch.randn(1, T, D)
    changed = x.clone()
    changed[:, 4] += 1
    for bidirectional in (False, True):
        model, _ = make("lstm", 2, bidirectional)
        a, b = model(x)[0], model(changed)[0]
        assert torch.equal(a[:, :4], b[:, :4]) != bidirectional
        assert not torch.equal(a[:, 4:], b[:, 4:])


def test_detached_state_stops_the_gradient():
    model, _ = make("lstm")
    x = torch.randn(B, T, D, requires_grad=True)
    _, state = model(x[:, :3])
    model(x[:, 3:], detached(state))[0].sum().backward()
    assert (x.grad[:, :3] == 0).all()
    assert (x.grad[:, 3:] != 0).any()


def test_forget_bias_is_where_it_is_said_to_be():
    cell = LSTMCell(D, N, forget_bias=2.5)
    total = cell.input.bias + cell.recurrent.bias
    assert torch.equal(total[N : 2 * N], torch.full((N,), 2.5))
    big = LSTMCell(D, N, forget_bias=50)
    with torch.no_grad():
        big.input.bias[:N] = -50  # input gate shut, forget gate open: the cell is a perfect memory
        big.recurrent.bias[:N] = 0
    state = (torch.randn(B, N), torch.randn(B, N))
    _, c = big.step(big.input(torch.randn(B, D)), state)
    assert torch.allclose(c, state[1], atol=1e-12)


def test_dropout_acts_between_layers_and_in_training_only():
    model = Recurrent(RNNCell, D, N, 2, dropout=0.5)
    x = torch.randn(B, T, D)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])
    one = Recurrent(RNNCell, D, N, 1, dropout=0.5)
    assert torch.equal(one(x)[0], one(x)[0]), "one layer has nothing between layers"


# --- named wrong versions: the comparison with torch must reject each of them -------------------


class GatesSwapped(LSTMCell):
    def step(self, z, state):
        h, c = state
        f, i, g, o = (z + self.recurrent(h)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class CandidateWithSigmoid(LSTMCell):
    def step(self, z, state):
        h, c = state
        i, f, g, o = (z + self.recurrent(h)).sigmoid().chunk(4, dim=-1)
        c = f * c + i * g
        return o * c.tanh(), c


class OutputWithoutTanh(LSTMCell):
    def step(self, z, state):
        h, c = state
        i, f, g, o = (z + self.recurrent(h)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c, c


class OutputOfOldCell(LSTMCell):
    def step(self, z, state):
        h, old = state
        i, f, g, o = (z + self.recurrent(h)).chunk(4, dim=-1)
        return o.sigmoid() * old.tanh(), f.sigmoid() * old + i.sigmoid() * g.tanh()


class ResetBeforeTheProduct(GRUCell):
    """The paper's order, not cuDNN's."""

    def step(self, z, state):
        (h,) = state
        n = self.d_state
        r, u = (z + self.recurrent(h))[:, : 2 * n].sigmoid().chunk(2, dim=-1)
        w, b = self.recurrent.weight[2 * n :], self.recurrent.bias[2 * n :]
        new = torch.tanh(z[:, 2 * n :] + (r * h) @ w.T + b)
        return ((1 - u) * new + u * h,)


class UpdateInverted(GRUCell):
    def step(self, z, state):
        (h,) = state
        z_r, z_u, z_n = z.chunk(3, dim=-1)
        r, u, n = self.recurrent(h).chunk(3, dim=-1)
        r, u = (z_r + r).sigmoid(), (z_u + u).sigmoid()
        return (u * torch.tanh(z_n + r * n) + (1 - u) * h,)


class ResetScalesTheInputToo(GRUCell):
    def step(self, z, state):
        (h,) = state
        z_r, z_u, z_n = z.chunk(3, dim=-1)
        r, u, n = self.recurrent(h).chunk(3, dim=-1)
        r, u = (z_r + r).sigmoid(), (z_u + u).sigmoid()
        return ((1 - u) * torch.tanh(r * (z_n + n)) + u * h,)


class NoRecurrentBias(RNNCell):
    def step(self, z, state):
        return (torch.tanh(z + state[0] @ self.recurrent.weight.T),)


class RecurrentTransposed(RNNCell):
    def step(self, z, state):
        return (torch.tanh(z + state[0] @ self.recurrent.weight + self.recurrent.bias),)


WRONG_CELLS = {
    "lstm": [GatesSwapped, CandidateWithSigmoid, OutputWithoutTanh, OutputOfOldCell],
    "gru": [ResetBeforeTheProduct, UpdateInverted, ResetScalesTheInputToo],
    "rnn": [NoRecurrentBias, RecurrentTransposed],
}


@pytest.mark.parametrize(("kind", "wrong"), [(k, w) for k, ws in WRONG_CELLS.items() for w in ws])
def test_wrong_cell_is_rejected(kind, wrong):
    model, oracle = make(kind, cell=wrong)
    x = torch.randn(B, T, D)
    assert (model(x)[0] - oracle(x)[0]).abs().max() > 1e-3


class BackwardsNotTurnedBack(RecurrentLayer):
    """Reads from the end but leaves the outputs in reading order."""

    def forward(self, x, state=None, *, mask=None, starts=None):
        out, state = super().forward(x, state, mask=mask, starts=starts)
        return (out.flip(1) if self.backwards else out), state


class PaddingIsRead(RecurrentLayer):
    """Zeroes the outputs at padding, but lets padding change the state."""

    def forward(self, x, state=None, *, mask=None, starts=None):
        out, state = super().forward(x, state, starts=starts)
        return (out if mask is None else out * mask[..., None]), state


@pytest.mark.parametrize("wrong", [BackwardsNotTurnedBack, PaddingIsRead])
def test_wrong_layer_is_rejected(wrong):
    model, oracle = make("gru", 1, True)
    for i, layer in enumerate(model.layers):
        model.layers[i] = wrong(layer.cell, backwards=layer.backwards)
    lengths = [7, 2, 5]
    x = torch.randn(B, T, D)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(oracle(packed)[0], batch_first=True, total_length=T)
    out, _ = model(x, mask=lengths_mask(lengths))
    assert (out - expected).abs().max() > 1e-3


def test_a_cell_must_say_how_it_steps():
    with pytest.raises(NotImplementedError):
        Cell(D, N).step(torch.zeros(1, N), (torch.zeros(1, N),))
