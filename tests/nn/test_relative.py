import math

import pytest
import torch

from minillm.nn import (
    TORCH_OPS,
    MultiHeadAttention,
    RelativeBias,
    alibi_attention,
    alibi_bias,
    alibi_slopes,
    attention_weights,
    causal_mask,
    distances,
    scaled_dot_product_attention,
    t5_buckets,
)


def test_distances_are_key_minus_query_aligned_to_the_bottom_right():
    assert distances(3).tolist() == [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]
    assert distances(2, 4).tolist() == [[-2, -1, 0, 1], [-3, -2, -1, 0]]
    for t, s in ((1, 1), (3, 7), (5, 5)):
        assert torch.equal(distances(t, s) <= 0, causal_mask(t, s))


def one_bucket(distance, bidirectional, n_buckets, max_distance):
    """The bucket of one distance, in exact steps: how many borders does it pass?"""
    side = n_buckets // 2 if bidirectional else n_buckets
    n = abs(distance) if bidirectional else max(-distance, 0)
    exact = side // 2
    if n < exact:
        bucket = n
    else:
        ratio = max_distance / exact
        borders = [exact * ratio ** (k / (side - exact)) for k in range(side - exact)]
        passed = [k for k, border in enumerate(borders) if n >= border - 1e-9]
        bucket = exact + passed[-1]
    return bucket + side * (bidirectional and distance > 0)


CASES = [(True, 32, 128), (False, 32, 128), (True, 8, 20), (False, 6, 50), (True, 4, 9)]


@pytest.mark.parametrize(("bidirectional", "n_buckets", "max_distance"), CASES)
def test_buckets(bidirectional, n_buckets, max_distance):
    options = {
        "bidirectional": bidirectional, "n_buckets": n_buckets, "max_distance": max_distance
    }  # fmt: skip
    far = torch.arange(-300, 301)
    ours = t5_buckets(far, **options)
    assert ours.tolist() == [one_bucket(d, *options.values()) for d in far.tolist()]
    assert sorted(set(ours.tolist())) == [
        b for b in range(n_buckets) if not (bidirectional and b == n_buckets // 2)
    ], "every bucket is used, but for 'distance 0, later'"
    wrong = {
        "sign": t5_buckets(-far, **options),
        "off by one": t5_buckets(far - 1, **options),
        "kind": t5_buckets(far, **options | {"bidirectional": not bidirectional}),
    }
    for name, other in wrong.items():
        assert not torch.equal(other, ours), name


def test_known_buckets_of_an_encoder():
    """8 exact ones a side; the next begin at 8, 11.3, 16, …, 64, 90.5: factors of √2."""
    earlier = -torch.tensor([0, 7, 8, 15, 16, 31, 32, 63, 64, 90, 91, 5000])
    found = t5_buckets(earlier, bidirectional=True)
    assert found.tolist() == [0, 7, 8, 9, 10, 11, 12, 13, 14, 14, 15, 15]
    assert t5_buckets(torch.tensor([1, 128]), bidirectional=True).tolist() == [17, 31]
    later = t5_buckets(torch.tensor([0, 1, 99]), bidirectional=False)
    assert later.tolist() == [0, 0, 0], "a decoder cannot look there anyway"


def test_bias_has_one_number_for_bucket_and_head():
    torch.manual_seed(0)
    bias = RelativeBias(3, bidirectional=False, n_buckets=8, max_distance=20)
    out = bias(distances(4, 9))
    assert out.shape == (3, 4, 9)
    buckets = t5_buckets(distances(4, 9), bidirectional=False, n_buckets=8, max_distance=20)
    for h in range(3):
        for i in range(4):
            for j in range(9):
                assert out[h, i, j] == bias.weight[buckets[i, j], h]
    batch = torch.stack([distances(4, 9), distances(4, 9) - 5])
    assert torch.equal(bias(batch)[0], out) and bias(batch).shape == (2, 3, 4, 9)
    out.sum().backward()
    assert torch.equal(bias.weight.grad.sum(0), torch.tensor([36.0, 36.0, 36.0]))


def test_slopes_for_powers_of_two_are_the_papers():
    assert alibi_slopes(8).tolist() == [2.0**-k for k in range(1, 9)]
    torch.testing.assert_close(alibi_slopes(16), 2.0 ** -(torch.arange(1, 17).double() / 2))
    assert alibi_slopes(1).tolist() == [2.0**-8]


def test_slopes_for_other_numbers():
    twelve = [2.0**-k for k in range(1, 9)] + [2.0 ** -(k / 2) for k in (1, 3, 5, 7)]
    torch.testing.assert_close(alibi_slopes(12), torch.tensor(twelve, dtype=torch.float64))
    naive = 2.0 ** -(8 * torch.arange(1, 13).double() / 12)
    assert (alibi_slopes(12) - naive).abs().max() > 0.05, "the formula with n = 12"
    for n in range(1, 70):
        assert alibi_slopes(n).shape == (n,) and len(set(alibi_slopes(n).tolist())) == n


def test_alibi_equals_slope_times_key_position_under_a_causal_mask():
    """BLOOM's form differs by one number per query, which a softmax does not see."""
    slopes = alibi_slopes(3)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 3, 7, 4, generator=generator)
    ours = attention_weights(q, k, bias=alibi_bias(distances(7), slopes), causal=True)
    blooms = (slopes[:, None, None] * torch.arange(7)).float()
    torch.testing.assert_close(ours, attention_weights(q, k, bias=blooms, causal=True))
    wrong = attention_weights(q, k, bias=-blooms, causal=True)
    assert (ours - wrong).abs().max() > 0.01, "sign"
    both = alibi_bias(distances(7), slopes)
    assert torch.equal(both, both.mT), "without a mask both sides count alike"


def test_a_cached_step_gets_the_last_row():
    bias = RelativeBias(2, bidirectional=False)
    assert torch.equal(bias(distances(1, 9)), bias(distances(9))[:, -1:])
    slopes = alibi_slopes(2)
    assert torch.equal(
        alibi_bias(distances(1, 9), slopes), alibi_bias(distances(9), slopes)[:, -1:]
    )


def test_bias_reaches_the_layer():
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(12, 3), torch.randn(2, 6, 12)
    bias = alibi_bias(distances(6), alibi_slopes(3))
    plain = layer(x, causal=True)
    steep = layer(x, causal=True, bias=1e6 * bias)
    assert (layer(x, causal=True, bias=bias) - plain).abs().max() > 1e-3
    own = layer.output(layer.value(x))
    torch.testing.assert_close(steep, own, msg="infinitely steep: every token sees itself only")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t5_buckets(distances(3), bidirectional=True, n_buckets=2), "n_buckets 2 must be"),
        (lambda: t5_buckets(distances(3), bidirectional=True, n_buckets=7), "n_buckets 7 must be"),
        (lambda: RelativeBias(2, bidirectional=False, max_distance=16), "above the 16 distances"),
        (lambda: alibi_slopes(0), "n_heads must be"),
        (lambda: distances(0), "t must be"),
    ],
)  # fmt: skip
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_dtype_follows_the_default():
    assert alibi_bias(distances(3), alibi_slopes(2)).dtype == torch.float32
    assert math.isclose(alibi_slopes(2)[0].item(), 2**-4)


def test_alibi_attention_adds_its_bias_with_grouped_heads_a_cache_and_padding():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 7, 5, dtype=torch.float64) for n in (4, 2, 2))
    near = alibi_bias(distances(7), alibi_slopes(4), torch.float64)
    more = torch.randn(7, 7, dtype=torch.float64)
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[0, ..., :2] = False
    op = alibi_attention(4)
    expected = scaled_dot_product_attention(q, k, v, mask, bias=near + more, causal=True)
    torch.testing.assert_close(op(q, k, v, mask, bias=more, causal=True), expected)
    plain = scaled_dot_product_attention(q, k, v, mask, bias=near, causal=True)
    last = op(q[:, :, -1:], k, v, mask, causal=True)
    torch.testing.assert_close(last, plain[:, :, -1:])
    fused = alibi_attention(4, attention=TORCH_OPS.attention)(q, k, v, mask, causal=True)
    torch.testing.assert_close(fused, plain)
    weaker = alibi_attention(4, strength=5**-0.5)(q, k, v, causal=True)
    scores = (q @ k.repeat_interleave(2, dim=1).mT + near) * 5**-0.5
    weights = scores.masked_fill(~causal_mask(7), -torch.inf).softmax(-1)
    torch.testing.assert_close(weaker, weights @ v.repeat_interleave(2, dim=1))


def test_alibi_attention_names_a_wrong_number_of_heads():
    q = torch.randn(1, 3, 2, 4)
    with pytest.raises(ValueError, match="3 heads and the bias 4"):
        alibi_attention(4)(q, q, q, causal=True)
