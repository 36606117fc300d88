"""Additive attention against its definition, one query and one key at a time.

No library has this layer with these parameters; the brute-force definition is the oracle.
"""

import pytest
import torch

from minillm.nn.additive_attention import AdditiveAttention


def by_definition(layer, query, keys, mask):
    out, weights = [], []
    for b in range(len(keys)):
        real = [s for s in range(keys.shape[1]) if mask is None or mask[b, s]]
        w, u, v = layer.query, layer.key.weight, layer.score.weight[0]
        inside = [torch.tanh(w.weight @ query[b] + w.bias + u @ keys[b, s]) for s in real]
        e = torch.stack([v @ x for x in inside]).exp()
        a = torch.zeros(keys.shape[1], dtype=keys.dtype)
        a[real] = e / e.sum()
        weights.append(a)
        out.append(sum(a[s] * keys[b, s] for s in real))
    return torch.stack(out), torch.stack(weights)


@pytest.fixture
def case():
    torch.manual_seed(0)
    layer = AdditiveAttention(4, 6, 5).double()
    mask = torch.tensor([[True] * 7, [False] * 2 + [True] * 5, [True] * 3 + [False] * 4])
    return layer, torch.randn(3, 4).double(), torch.randn(3, 7, 6).double(), mask


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_definition_with_gradients(case, masked):
    layer, query, keys, mask = case
    mask = mask if masked else None
    probe = torch.randn(3, 6).double()
    found = []
    for run in (lambda k: layer(query, k, layer.prepare(k), mask),
                lambda k: by_definition(layer, query, k, mask)):  # fmt: skip
        k = keys.clone().requires_grad_()
        layer.zero_grad()
        out, weights = run(k)
        (out * probe).sum().backward()
        found.append([out, weights, k.grad, *(p.grad.clone() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_a_row_without_keys_gives_zeros_not_nan(case):
    layer, query, keys, mask = case
    mask = mask.clone()
    mask[1] = False
    out, weights = layer(query, keys, layer.prepare(keys), mask)
    assert (out[1] == 0).all()
    assert (weights[1] == 0).all()
    assert torch.isfinite(out).all()


def _no_tanh(layer, query, keys):
    e = layer.score(layer.query(query)[:, None] + layer.prepare(keys))[..., 0]
    return e.softmax(-1)


def _over_the_batch(layer, query, keys):
    e = layer.score(torch.tanh(layer.query(query)[:, None] + layer.prepare(keys)))[..., 0]
    return e.softmax(0)


def _product(layer, query, keys):
    e = layer.score(torch.tanh(layer.query(query)[:, None] * layer.prepare(keys)))[..., 0]
    return e.softmax(-1)


@pytest.mark.parametrize("wrong", [_no_tanh, _over_the_batch, _product])
def test_wrong_version_is_rejected(case, wrong):
    layer, query, keys, _ = case
    expected = by_definition(layer, query, keys, None)[1]
    assert (wrong(layer, query, keys) - expected).abs().max() > 1e-2
