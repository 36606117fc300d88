"""The recurrent language model in use: training, generation from its state, resets.

Its numbers are compared with torch.nn in tests/parity/test_rnn.py.
"""

import pytest
import torch

from minillm.data import TokenWindows
from minillm.evaluation import perplexity
from minillm.generation import generate
from minillm.models.rnn import RNNLM, RNNConfig
from minillm.nn.recurrent import GRUCell, LSTMCell, RNNCell
from minillm.training import adamw, train

CELLS = pytest.mark.parametrize("cell", [RNNCell, LSTMCell, GRUCell])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return RNNLM(RNNConfig(11, 16, 2)).eval()


def test_the_cache_has_a_fixed_size(model):
    cache = model.new_cache()
    sizes = []
    for _ in range(5):
        model(torch.ones(3, 7, dtype=torch.long), cache=cache)
        sizes.append(cache.n_bytes)
    assert cache.length == 35
    assert sizes == [2 * 2 * 3 * 16 * 4] * 5  # layers × (h, c) × rows × width × bytes


def never_twice(logits, seen, generator):
    """The best token that is not among the last three: greedy text would soon repeat itself."""
    return logits.scatter(1, seen[:, -3:].clamp(min=0), -torch.inf).argmax(-1)


@pytest.mark.parametrize("cache", ["auto", None])
@CELLS
def test_generation_continues_as_repeated_full_passes_do(cell, cache):
    torch.manual_seed(1)
    model = RNNLM(RNNConfig(11, 16, 2), cell=cell).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    prompt = torch.tensor([[1, 2, 3, 5], [0, 2, 7, 4]])
    mask = torch.tensor([[True] * 4, [False, True, True, True]])
    options = {"max_new_tokens": 20, "attention_mask": mask, "cache": cache}
    out = generate(model, prompt, sampler=never_twice, **options)
    for row, start in ((0, 0), (1, 1)):
        ids = prompt[row : row + 1, start:]
        for _ in range(20):
            ids = torch.cat([ids, never_twice(model(ids)[:, -1], ids, None)[:, None]], dim=1)
        assert torch.equal(out[row, start:], ids[0])
        assert len(set(ids[0].tolist())) > 4, "a constant continuation would prove little"


def test_generation_reads_each_token_once(model, monkeypatch):
    read = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda x, **kw: (read.append(x.shape[1]), forward(x, **kw))[1]
    )
    generate(model, torch.tensor([[1, 2, 3]]), max_new_tokens=4)
    assert read == [3, 1, 1, 1]


def test_a_failed_pass_leaves_the_cache_alone(model, monkeypatch):
    cache = model.new_cache()
    model(torch.tensor([[1, 2]]), cache=cache)
    state = cache.state
    monkeypatch.setattr(model, "output", None)
    with pytest.raises(TypeError):
        model(torch.tensor([[3]]), cache=cache)
    assert cache.length == 2
    assert cache.state is state


def test_starts_keep_documents_apart(model):
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    starts = torch.tensor([[True, False, False, True, False, False]])
    out = model(tokens, starts=starts)
    assert torch.allclose(out[:, 3:], model(tokens[:, 3:]), atol=1e-6)
    assert not torch.allclose(out[:, 3:], model(tokens)[:, 3:], atol=1e-4)


@CELLS
def test_it_learns_a_pattern_and_knows_it_at_any_length(cell):
    torch.manual_seed(0)
    ids = torch.arange(6).repeat(60)  # 0 1 2 3 4 5 0 1 …
    model = RNNLM(RNNConfig(6, 16), cell=cell)
    windows = TokenWindows(ids, seq_len=12, batch_size=4)
    records = list(train(model, windows, optimizer=adamw(model, 1e-2), steps=60))
    assert records[0].loss > 1.5
    assert perplexity(model, ids, max_seq_len=360).perplexity < 1.2
    out = generate(model.eval(), torch.tensor([[2, 3]]), max_new_tokens=30)
    assert out[0].tolist() == [(2 + i) % 6 for i in range(32)]


def test_dropout_is_off_in_evaluation_mode():
    model = RNNLM(RNNConfig(11, 16, 2, dropout=0.5))
    tokens = torch.tensor([[1, 2, 3]])
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
