import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minillm.nn import (
    TORCH_OPS,
    Cache,
    LayerCache,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    padding_mask,
    scaled_dot_product_attention,
)

ATOL = 1e-12
IMPLEMENTATIONS = pytest.mark.parametrize(
    "attend", [scaled_dot_product_attention, TORCH_OPS.attention], ids=["reference", "torch"]
)
# (batch, heads, kv heads, queries, keys, head size): odd, grouped, multi-query, single query
SHAPES = [(2, 3, 3, 5, 5, 7), (1, 6, 2, 7, 7, 5), (3, 4, 1, 3, 11, 2), (2, 4, 2, 1, 9, 3)]
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def qkv(shape, seed=0):
    b, h, g, t, s, p = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)

    return draw(b, h, t, p), draw(b, g, s, p), draw(b, g, s, p)


def random_mask(shape, seed=1):
    b, _, _, t, s, _ = shape
    mask = torch.rand(b, 1, t, s, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[..., 0] = True  # no empty row: PyTorch and we agree there too, but tested below
    return mask


def assert_same_with_gradients(ours, expected, inputs):
    torch.testing.assert_close(ours, expected, atol=ATOL, rtol=0)
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9))
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), inputs, retain_graph=True),
        torch.autograd.grad((expected * weights).sum(), inputs, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


@EACH_SHAPE
@IMPLEMENTATIONS
@pytest.mark.parametrize(
    "case", ["plain", "mask", "scale", "causal", "causal and mask", "bias", "bias, causal and mask"]
)
def test_equals_torch(shape, attend, case):
    q, k, v = qkv(shape)
    t, s = shape[3:5]
    mask = random_mask(shape) if "mask" in case else None
    causal = "causal" in case
    scale = 0.3 if case == "scale" else None
    bias = torch.randn(shape[1], t, s, dtype=torch.float64) if "bias" in case else None
    full = mask
    if causal:  # bottom right, spelled out
        corner = torch.tensor([[j <= s - t + i for j in range(s)] for i in range(t)])
        full = corner if mask is None else mask & corner
    if bias is not None:
        full = bias if full is None else bias.masked_fill(~full, -torch.inf)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(
            q, k, v, full, scale=scale, enable_gqa=shape[1] != shape[2]
        )
    assert_same_with_gradients(
        attend(q, k, v, mask, bias=bias, causal=causal, scale=scale), expected, (q, k, v)
    )


def loops(q, k, v, h, g):
    """The definition, one query at a time; head i uses key head i // (h/g)."""
    out = torch.zeros(q.shape, dtype=q.dtype)
    (b, _, t, p), s = q.shape, k.shape[2]
    for n in range(b):
        for i in range(h):
            j = i // (h // g)
            for row in range(t):
                visible = range(s - t + row + 1)
                scores = [float(q[n, i, row] @ k[n, j, c]) / math.sqrt(p) for c in visible]
                exps = [math.exp(x) for x in scores]
                for c in visible:
                    out[n, i, row] += exps[c] / sum(exps) * v[n, j, c]
    return out


@EACH_SHAPE
@IMPLEMENTATIONS
def test_equals_the_definition_by_loops(shape, attend):
    q, k, v = (x.detach() for x in qkv(shape))
    expected = loops(q, k, v, *shape[1:3])
    torch.testing.assert_close(attend(q, k, v, causal=True), expected, atol=ATOL, rtol=0)


def wrong_tile(q, k, v):
    n = q.shape[1] // k.shape[1]
    return scaled_dot_product_attention(q, k.repeat(1, n, 1, 1), v.repeat(1, n, 1, 1), causal=True)


def wrong_missing_scale(q, k, v):
    return scaled_dot_product_attention(q, k, v, causal=True, scale=1.0)


def wrong_scale_by_d_model(q, k, v):
    return scaled_dot_product_attention(
        q, k, v, causal=True, scale=(q.shape[1] * q.shape[3]) ** -0.5
    )


def wrong_top_left(q, k, v):
    t, s = q.shape[2], k.shape[2]
    return scaled_dot_product_attention(q, k, v, torch.ones(t, s, dtype=torch.bool).tril())


def wrong_sees_one_ahead(q, k, v):
    t, s = q.shape[2], k.shape[2]
    return scaled_dot_product_attention(q, k, v, torch.ones(t, s, dtype=torch.bool).tril(s - t + 1))


def wrong_softmax_over_queries(q, k, v):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.mT / math.sqrt(q.shape[3])
    scores = scores.masked_fill(~causal_mask(*scores.shape[2:]), -1e9)
    return scores.softmax(-2) @ v


def wrong_mask_after_softmax(q, k, v):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    weights = (q @ k.mT / math.sqrt(q.shape[3])).softmax(-1)
    return weights.masked_fill(~causal_mask(*weights.shape[2:]), 0) @ v


@pytest.mark.parametrize(
    "wrong",
    [wrong_tile, wrong_missing_scale, wrong_scale_by_d_model, wrong_top_left, wrong_sees_one_ahead,
     wrong_softmax_over_queries, wrong_mask_after_softmax],
)  # fmt: skip
def test_wrong_version_is_rejected(wrong):
    shape = (2, 6, 2, 4, 7, 5)
    q, k, v = (x.detach() for x in qkv(shape))
    assert (wrong(q, k, v) - loops(q, k, v, 6, 2)).abs().max() > 1e-3


@IMPLEMENTATIONS
@pytest.mark.parametrize("bias", [None, torch.randn(2, 3, 4, dtype=torch.float64)])
def test_a_query_without_keys_gives_zero_and_finite_gradients(attend, bias):
    q, k, v = qkv((2, 2, 1, 3, 4, 5))
    mask = torch.ones(2, 1, 3, 4, dtype=torch.bool)
    mask[0, 0, 1] = False
    out = attend(q, k, v, mask, bias=bias)
    assert torch.equal(out[0, :, 1], torch.zeros(2, 5, dtype=torch.float64))
    assert out[0, :, 0].abs().min() > 0
    for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
        assert gradient.isfinite().all()


@IMPLEMENTATIONS
def test_more_queries_than_keys_leaves_the_first_ones_empty(attend):
    q, k, v = qkv((1, 2, 2, 5, 3, 4))
    out = attend(q, k, v, causal=True)
    assert torch.equal(out[:, :, :2], torch.zeros(1, 2, 2, 4, dtype=torch.float64))
    torch.testing.assert_close(out[:, :, 2], v[:, :, 0])


@IMPLEMENTATIONS
def test_huge_scores_stay_finite(attend):
    q, k, v = (x.float() for x in qkv((1, 2, 2, 4, 4, 3)))
    out = attend(1e4 * q, 1e4 * k, v, causal=True)
    assert out.isfinite().all()


def test_weights_are_a_distribution_over_visible_keys():
    shape = (2, 4, 2, 5, 8, 3)
    q, k, _ = qkv(shape)
    weights = attention_weights(q, k, causal=True)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5, dtype=torch.float64))
    assert (weights[..., ~causal_mask(5, 8)] == 0).all()
    assert (weights[..., causal_mask(5, 8)] > 0).all()


def test_masks():
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True] * 4]
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True] * 3]
    real = torch.tensor([[True, False], [True, True]])
    assert padding_mask(real).shape == (2, 1, 1, 2)
    assert padding_mask(real)[0, 0, 0].tolist() == [True, False]


# --- the layer ---------------------------------------------------------------------------------


def layer(d=12, h=4, seed=3, **kwargs):
    torch.manual_seed(seed)
    attention = MultiHeadAttention(d, h, **kwargs).double()
    for p in attention.parameters():
        nn.init.normal_(p, std=0.3)
    return attention


def torch_layer(ours, d=12, h=4):
    """nn.MultiheadAttention with the same weights."""
    theirs = nn.MultiheadAttention(d, h, batch_first=True).double()
    with torch.no_grad():
        parts = (ours.query, ours.key, ours.value)
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    return theirs


@IMPLEMENTATIONS
@pytest.mark.parametrize("case", ["self", "causal", "padding", "cross"])
def test_layer_equals_torch(attend, case):
    ours = layer(attention=attend)
    theirs = torch_layer(ours)
    x = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(3, 8, 12, dtype=torch.float64, requires_grad=True)
    real = torch.ones(3, 5, dtype=torch.bool)
    real[1, 3:], real[2, :2] = False, False
    source = memory if case == "cross" else x
    expected, _ = theirs(
        x, source, source,
        attn_mask=~causal_mask(5) if case == "causal" else None,
        key_padding_mask=~real if case == "padding" else None,
    )  # fmt: skip
    out = ours(
        x,
        memory if case == "cross" else None,
        causal=case == "causal",
        mask=padding_mask(real) if case == "padding" else None,
    )
    assert_same_with_gradients(out, expected, (x, memory) if case == "cross" else (x,))
    weights = torch.randn(out.shape, dtype=out.dtype)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    fused = [torch.cat([getattr(p, kind).grad for p in (ours.query, ours.key, ours.value)])
             for kind in ("weight", "bias")]  # fmt: skip
    pairs = [
        (fused[0], theirs.in_proj_weight.grad),
        (fused[1], theirs.in_proj_bias.grad),
        (ours.output.weight.grad, theirs.out_proj.weight.grad),
        (ours.output.bias.grad, theirs.out_proj.bias.grad),
    ]
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_grouped_layer_equals_a_full_one_with_repeated_heads():
    grouped = layer(d=12, h=4, n_kv_heads=2, d_head=5)
    full = layer(d=12, h=4, d_head=5)
    with torch.no_grad():
        for name in ("query", "output"):
            getattr(full, name).load_state_dict(getattr(grouped, name).state_dict())
        for name in ("key", "value"):
            source, target = getattr(grouped, name), getattr(full, name)
            rows = [(i // 2) * 5 + j for i in range(4) for j in range(5)]
            target.weight.copy_(source.weight[rows])
            target.bias.copy_(source.bias[rows])
    x = torch.randn(2, 6, 12, dtype=torch.float64)
    torch.testing.assert_close(grouped(x, causal=True), full(x, causal=True), atol=ATOL, rtol=0)


class CatLayer:
    def __init__(self):
        self.k = self.v = None

    def append(self, k, v):
        self.k = k if self.k is None else torch.cat([self.k, k], dim=2)
        self.v = v if self.v is None else torch.cat([self.v, v], dim=2)
        return self.k, self.v


@IMPLEMENTATIONS
@pytest.mark.parametrize("chunks", [[1] * 7, [3, 4], [5, 1, 1]], ids=str)
def test_cached_equals_full(attend, chunks):
    attention = layer(n_kv_heads=2, attention=attend)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    cache = CatLayer()
    parts = [attention(part, causal=True, cache=cache) for part in x.split(chunks, dim=1)]
    full = attention(x, causal=True)
    torch.testing.assert_close(torch.cat(parts, dim=1), full, atol=ATOL, rtol=0)
    assert cache.k.shape == (2, 2, 7, 3), "the cache holds n_kv_heads heads, not n_heads"


def test_cache_protocols():
    class Both:
        length = 0

        def __getitem__(self, layer):
            return CatLayer()

    assert isinstance(CatLayer(), LayerCache)
    assert isinstance(Both(), Cache)
    assert not isinstance(object(), LayerCache)


@IMPLEMENTATIONS
def test_causal_layer_is_blind_to_the_future_bit_for_bit(attend):
    attention = layer(attention=attend).float()
    x = torch.randn(2, 9, 12)
    out = attention(x, causal=True)
    for t in (0, 4, 8):
        y = x.clone()
        y[:, t] += 5
        changed = attention(y, causal=True)
        assert torch.equal(changed[:, :t], out[:, :t])
        assert not torch.equal(changed[:, t], out[:, t])


def test_self_attention_without_positions_is_permutation_equivariant():
    attention = layer()
    x = torch.randn(1, 6, 12, dtype=torch.float64)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], atol=ATOL, rtol=0)


@IMPLEMENTATIONS
def test_dropout_acts_in_training_only_and_keeps_the_mean(attend):
    attention = layer(dropout=0.5, attention=attend)
    x = torch.randn(1, 6, 12, dtype=torch.float64)
    clean = attention.eval()(x)
    assert torch.equal(clean, attention(x))
    attention.train()
    torch.manual_seed(0)
    with torch.no_grad():
        draws = attention(x.expand(4000, -1, -1))[:, None]
    assert draws.std(0).min() > 0.01
    error = (draws.mean(0) - clean).abs() / (draws.std(0) / 4000**0.5)
    assert error.max() < 5


@IMPLEMENTATIONS
def test_dropout_zeroes_that_share_of_the_weights(attend):
    torch.manual_seed(0)
    zeros, values = torch.zeros(40, 1, 50, 50), torch.eye(50).expand(40, 1, 50, 50)
    weights = attend(zeros, zeros, values, dropout=0.3)  # uniform, seen through one-hot values
    assert (weights == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(weights.max().item(), 1 / 50 / 0.7)


@IMPLEMENTATIONS
@pytest.mark.parametrize("length", [6, 9])
def test_causal_cross_attention_is_aligned_to_the_bottom_right(attend, length):
    attention, x = layer(attention=attend), torch.randn(2, 6, 12, dtype=torch.float64)
    memory = torch.randn(2, length, 12, dtype=torch.float64)
    expected = attention(x, memory, mask=causal_mask(6, length))
    torch.testing.assert_close(attention(x, memory, causal=True), expected, atol=ATOL, rtol=0)
    assert (attention(x, memory) - expected).abs().max() > 1e-3


def test_forward_changes_nothing():
    attention = layer(n_kv_heads=2)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    mask = padding_mask(torch.ones(2, 5, dtype=torch.bool))
    before = x.clone(), mask.clone(), {k: v.clone() for k, v in attention.state_dict().items()}
    first, second = attention(x, mask=mask, causal=True), attention(x, mask=mask, causal=True)
    assert torch.equal(first, second)
    assert torch.equal(x, before[0])
    assert torch.equal(mask, before[1])
    assert all(torch.equal(v, before[2][k]) for k, v in attention.state_dict().items())


def test_bias_gets_the_same_gradient_from_both():
    q, k, v = qkv((2, 4, 2, 3, 5, 7))
    gradients = []
    for attend in (scaled_dot_product_attention, TORCH_OPS.attention):
        bias = torch.zeros(4, 3, 5, dtype=torch.float64, requires_grad=True)
        attend(q, k, v, bias=bias, causal=True).square().sum().backward()
        gradients.append(bias.grad)
    torch.testing.assert_close(*gradients, atol=ATOL, rtol=0)
    assert gradients[0].abs().max() > 1e-3


def test_norms_then_rotary_act_on_queries_and_new_keys():
    """Against the parts put together by hand; a cache stores what came out of both."""
    torch.manual_seed(0)
    norms = [nn.RMSNorm(3, dtype=torch.float64) for _ in range(2)]
    for norm in norms:
        nn.init.normal_(norm.weight)

    def rotary(x, positions):
        return x * (1 + positions[:, None, :, None])

    attention = layer(query_norm=norms[0], key_norm=norms[1], rotary=rotary)
    x = torch.randn(1, 5, 12, dtype=torch.float64)

    def split(y):
        return y.view(1, 5, 4, 3).transpose(1, 2)

    turn = torch.arange(1.0, 6, dtype=torch.float64)[:, None]
    q = norms[0](split(attention.query(x))) * turn
    k = norms[1](split(attention.key(x))) * turn
    out = scaled_dot_product_attention(q, k, split(attention.value(x)), causal=True)
    expected = attention.output(out.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, causal=True), expected, atol=ATOL, rtol=0)
    cache, positions = CatLayer(), torch.arange(5)[None]
    steps = [
        attention(x[:, i : i + 1], causal=True, positions=positions[:, i : i + 1], cache=cache)
        for i in range(5)
    ]
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=ATOL, rtol=0)
    with pytest.raises(ValueError, match="needs `positions`"):
        attention(x, cache=CatLayer())
    with pytest.raises(ValueError, match="takes no rotary"):
        attention(x, x)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="d_model 10 is not divisible by n_heads 3"):
        MultiHeadAttention(10, 3)
    with pytest.raises(ValueError, match="n_kv_heads 3 must divide n_heads 4"):
        MultiHeadAttention(12, 4, n_kv_heads=3)
    x = torch.randn(1, 3, 12, dtype=torch.float64)
    with pytest.raises(ValueError, match="memory or cache"):
        layer()(x, x, cache=CatLayer())
    q, k, v = qkv((1, 4, 3, 2, 2, 3))
    with pytest.raises(ValueError, match="4 query heads cannot share 3"):
        scaled_dot_product_attention(q, k, v)
    q, k, v = qkv((1, 4, 2, 2, 2, 3))
    with pytest.raises(ValueError, match=r"bias \(3, 2, 2\) does not broadcast"):
        scaled_dot_product_attention(q, k, v, bias=torch.zeros(3, 2, 2))


def test_remembered_keys_and_values_serve_as_memory():
    layer = MultiHeadAttention(12, 4, n_kv_heads=2, key_norm=nn.LayerNorm(3)).double()
    x, memory = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    nn.init.normal_(layer.key_norm.weight)
    keys, values = layer.remember(memory)
    assert keys.shape == values.shape == (2, 2, 7, 3)
    layer.key.forward = layer.value.forward = None  # a second projection would fail
    with torch.no_grad():
        steps = [layer(x[:, i : i + 1], (keys, values)) for i in range(5)]
    del layer.key.forward, layer.value.forward
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x, memory), atol=ATOL, rtol=0)
