"""RNN, LSTM and GRU language models against torch.nn, in float64, with noise on every weight."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from minillm.models.rnn import RNNLM, RNNConfig
from minillm.nn.recurrent import GRUCell, LSTMCell, RNNCell

ATOL = 1e-9
V, D, L = 97, 24, 3
CELLS = {"rnn": RNNCell, "lstm": LSTMCell, "gru": GRUCell}
CHUNKS = {"logits, one token at a time": [1] * 17, "logits, in chunks": [9, 1, 7]}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Oracle(nn.Module):
    """A language model from torch's parts: embedding, RNN, LSTM or GRU, tied linear layer."""

    def __init__(self, kind):
        super().__init__()
        self.tokens = nn.Embedding(V, D)
        self.net = getattr(nn, kind.upper())(D, D, L, batch_first=True)
        self.output = nn.Linear(D, V)
        self.output.weight = self.tokens.weight

    def forward(self, tokens, mask):
        """Padding on the right is packed; rows with padding on the left are read alone."""
        x = self.tokens(tokens)
        if mask[:, 0].all():
            packed = pack_padded_sequence(x, mask.sum(1), batch_first=True, enforce_sorted=False)
            h, _ = pad_packed_sequence(self.net(packed)[0], batch_first=True, total_length=17)
            return self.output(h)
        rows = [F.pad(self.net(r[m][None])[0][0], (0, 0, int((~m).sum()), 0))
                for r, m in zip(x, mask, strict=True)]  # fmt: skip
        return self.output(torch.stack(rows))


@pytest.fixture(params=CELLS)
def pair(request, perturb):
    theirs = perturb(Oracle(request.param), seed=1)
    model = RNNLM(RNNConfig(V, D, L), cell=CELLS[request.param])
    copy(model, theirs)
    return request.param, theirs, model


def copy(model, theirs):
    model.recurrent.load_torch(theirs.net.state_dict())
    with torch.no_grad():
        model.tokens.weight.copy_(theirs.tokens.weight)
        model.output.bias.copy_(theirs.output.bias)


def inputs(padding, b=3, t=17):
    """Tokens, mask and labels; no label where a padded query would have to predict."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(V, (b, t), generator=generator)
    mask = torch.ones(b, t, dtype=torch.bool)
    for row, pads in enumerate([0, 3, 6][:b]):
        if padding == "left":
            mask[row, :pads] = False
        elif padding == "right":
            mask[row, t - pads :] = False
    labels = tokens.masked_fill(~mask, -100)
    labels[:, 1:][~mask[:, :-1]] = -100
    return tokens, mask, labels


def loss_of(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def paired_gradients(theirs, model):
    """{torch's name: (their gradient, ours)}, every parameter once."""
    ours = dict(model.named_parameters())
    names = {"tokens.weight": "tokens.weight", "output.bias": "output.bias"}
    for i in range(L):
        for mine, yours in (("input", "ih"), ("recurrent", "hh")):
            for part in ("weight", "bias"):
                names[f"net.{part}_{yours}_l{i}"] = f"recurrent.layers.{i}.cell.{mine}.{part}"
    assert names.keys() == dict(theirs.named_parameters()).keys()
    assert sorted(names.values()) == sorted(ours)
    return {n: (p.grad, ours[names[n]].grad) for n, p in theirs.named_parameters()}


def worst(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_logits_loss_and_every_gradient(pair, padding, record):
    kind, theirs, model = pair
    tokens, mask, labels = inputs(padding)
    expected = theirs(tokens, mask)
    logits = model(tokens, attention_mask=None if mask.all() else mask)
    losses = loss_of(expected, labels), loss_of(logits, labels)
    for loss in losses:
        loss.backward()
    gradients = paired_gradients(theirs, model)
    assert min(g[0].abs().max() for g in gradients.values()) > 1e-6
    check = "plain" if padding == "none" else f"{padding} padding"
    for what, error in [
        ("logits", worst([(expected[mask], logits[mask])])),
        ("loss", worst([losses])),
        ("gradients", worst(gradients.values())),
    ]:
        record(kind, f"torch.nn.{kind.upper()}", f"{what}, {check}", error)
        assert error < ATOL, what


@pytest.mark.parametrize("check", CHUNKS)
@pytest.mark.parametrize("padding", ["none", "left"])
def test_reading_in_pieces_equals_the_oracle_in_one_go(pair, check, padding, record):
    kind, theirs, model = pair
    tokens, mask, _ = inputs(padding)
    cache, pieces, start = model.new_cache(), [], 0
    with torch.no_grad():
        expected = theirs(tokens, mask)
        for size in CHUNKS[check]:
            end = start + size
            seen = mask[:, :end] if padding == "left" else None
            pieces.append(model(tokens[:, start:end], attention_mask=seen, cache=cache))
            start = end
    error = worst([(torch.cat(pieces, dim=1)[mask], expected[mask])])
    record(kind, f"torch.nn.{kind.upper()}", check, error)
    assert cache.length == 17
    assert error < ATOL


# --- named wrong versions: the comparison above must reject each of them -----------------------


def _layers_swapped(model):
    a, b, c = model.recurrent.layers
    model.recurrent.layers = nn.ModuleList([b, a, c])


def _untied(model):
    model.output.weight = nn.Parameter(model.output.weight.flip(0))


def _no_output_bias(model):
    model.output.bias.data.zero_()


def _no_recurrent_bias(model):
    for layer in model.recurrent.layers:
        layer.cell.recurrent.bias.data.zero_()


def _input_and_recurrent_swapped(model):
    for layer in model.recurrent.layers:
        cell = layer.cell
        cell.input, cell.recurrent = cell.recurrent, cell.input


def _gates_reordered(model):
    for layer in model.recurrent.layers:
        weight = layer.cell.recurrent.weight
        weight.data = weight.data.roll(D if layer.cell.n_gates > 1 else 1, 0)


def _padding_is_read(model):
    layer = type(model.recurrent).forward
    model.recurrent.forward = lambda x, state=None, mask=None, starts=None: layer(
        model.recurrent, x, state, starts=starts
    )


WRONG = [_layers_swapped, _untied, _no_output_bias, _no_recurrent_bias,
         _input_and_recurrent_swapped, _gates_reordered, _padding_is_read]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_version_is_rejected(pair, wrong):
    _, theirs, model = pair
    tokens, mask, _ = inputs("left")
    wrong(model)
    with torch.no_grad():
        expected, logits = theirs(tokens, mask), model(tokens, attention_mask=mask)
    assert worst([(expected[mask], logits[mask])]) > 1e-5


def test_forgetting_the_state_between_pieces_is_rejected(pair):
    _, theirs, model = pair
    tokens, mask, _ = inputs("none")
    with torch.no_grad():
        pieces = [model(tokens[:, :9]), model(tokens[:, 9:])]
        assert worst([(theirs(tokens, mask), torch.cat(pieces, dim=1))]) > 1e-3
