import math

import pytest
import torch

from minillm.nn import (
    Rotary,
    halves_to_pairs,
    pairs_from_halves,
    pairs_to_halves,
    rotary_frequencies,
    rotate_halves,
    rotate_pairs,
)
from minillm.nn.rotary import turn

ROW = torch.arange(5)[None]
LAYOUTS = {"halves": rotate_halves, "pairs": rotate_pairs}


@pytest.fixture(params=LAYOUTS)
def rotate(request):
    return LAYOUTS[request.param]


def heads(t=5, p=8, seed=0, b=2, h=3):
    return torch.randn(
        b, h, t, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def by_matrix(x, positions, d_rotary, places, base=10000.0, sign=1):
    """R_m x from the definition, pair by pair and number by number; `places(i)` is pair i."""
    out = x.clone()
    for b in range(x.shape[0]):
        for t in range(x.shape[2]):
            m = positions[b % len(positions)][t].item()
            for i in range(d_rotary // 2):
                angle = sign * m * base ** (-2 * i / d_rotary)
                one, two = places(i)
                u, v = x[b, :, t, one], x[b, :, t, two]
                out[b, :, t, one] = u * math.cos(angle) - v * math.sin(angle)
                out[b, :, t, two] = u * math.sin(angle) + v * math.cos(angle)
    return out


@pytest.mark.parametrize("d_rotary", [8, 6, 2])
@pytest.mark.parametrize("base", [10000.0, 500000])
def test_equals_the_definition_in_both_layouts(d_rotary, base):
    x, positions = heads(), torch.tensor([[0, 1, 2, 3, 4], [7, 9, 2, 100, 0]])
    theta = rotary_frequencies(d_rotary, base=base)
    f = d_rotary // 2
    layouts = (rotate_halves, lambda i: (i, i + f)), (rotate_pairs, lambda i: (2 * i, 2 * i + 1))
    for rotate, places in layouts:
        right = by_matrix(x, positions, d_rotary, places, base)
        ours = Rotary(theta, rotate=rotate)(x, positions)
        torch.testing.assert_close(ours, right, atol=1e-12, rtol=0)
        assert torch.equal(ours[..., d_rotary:], x[..., d_rotary:]), "partial: the rest stays"
        wrong = by_matrix(x, positions, d_rotary, places, base, sign=-1)
        assert (ours - wrong).abs().max() > 0.1, "turned the other way"


def test_scores_depend_on_the_distance_only_and_lengths_stay(rotate):
    q, k = heads(t=1), heads(t=1, seed=1)
    rotary = Rotary(rotary_frequencies(8), rotate=rotate)

    def score(m, n, turned=rotary):
        places = [torch.tensor([[place]]) for place in (m, n)]
        return (turned(q, places[0]) * turned(k, places[1])).sum(-1)

    for m, n in ((3, 1), (10, 8), (5002, 5000)):
        torch.testing.assert_close(score(m, n), score(2, 0), atol=1e-10, rtol=0)
    assert (score(3, 1) - score(1, 3)).abs().max() > 0.1, "the sign of the distance matters"
    assert (score(3, 1) - score(4, 1)).abs().max() > 0.1
    lengths = rotary(q, torch.tensor([[77]])).norm(dim=-1)
    torch.testing.assert_close(lengths, q.norm(dim=-1), atol=1e-12, rtol=0)

    def added(x, positions):  # a position added instead of turned has no such property
        return x + positions[:, None, :, None] * rotary_frequencies(8).repeat(2)

    assert (score(3, 1, added) - score(10, 8, added)).abs().max() > 0.1


def test_position_0_changes_nothing(rotate):
    x = heads(t=1)
    assert torch.equal(Rotary(rotary_frequencies(8), rotate=rotate)(x, torch.tensor([[0]])), x)


def test_one_row_of_positions_serves_the_batch(rotate):
    x, row = heads(), torch.arange(5)[None] + 3
    rotary = Rotary(rotary_frequencies(6), rotate=rotate)
    assert torch.equal(rotary(x, row), rotary(x, row.expand(2, -1)))


def test_scale_acts_on_what_is_turned(rotate):
    x, row = heads(), torch.arange(5)[None]
    plain = Rotary(rotary_frequencies(6), rotate=rotate)(x, row)
    scaled = Rotary(rotary_frequencies(6), rotate=rotate, scale=1.5)(x, row)
    torch.testing.assert_close(scaled[..., :6], 1.5 * plain[..., :6])
    assert torch.equal(scaled[..., 6:], x[..., 6:])


def test_the_permutation_between_the_layouts():
    x, row = heads(p=10), torch.arange(5)[None]
    for d_rotary in (10, 6):
        theta, order = rotary_frequencies(d_rotary), pairs_from_halves(10, d_rotary)
        halves, pairs = Rotary(theta), Rotary(theta, rotate=rotate_pairs)
        assert torch.equal(pairs(x[..., order], row), halves(x, row)[..., order])
        assert (pairs(x, row) - halves(x, row)).abs().max() > 0.1, "wrong layout"
        back = order.argsort()
        assert (pairs(x[..., back], row) - halves(x, row)[..., back]).abs().max() > 0.1
    assert pairs_from_halves(8, 6).tolist() == [0, 3, 1, 4, 2, 5, 6, 7]


@pytest.mark.parametrize("d_rotary", [None, 4])
def test_reordered_projections_give_the_same_scores(d_rotary):
    """What converting LLaMA's own files does to the rows of W_Q and W_K, with 6 and 2 heads."""
    h, g, p, d = 6, 2, 8, 12
    generator = torch.Generator().manual_seed(2)
    w_q = torch.randn(h * p, d, generator=generator, dtype=torch.float64)
    w_k = torch.randn(g * p, d, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 5, d, generator=generator, dtype=torch.float64)

    def scores(w_q, w_k, rotate):
        q, k = (
            Rotary(rotary_frequencies(d_rotary or p), rotate=rotate)(
                (x @ w.T).view(2, 5, n, p).transpose(1, 2), torch.arange(5)[None]
            )
            for w, n in ((w_q, h), (w_k, g))
        )
        return q @ k.repeat_interleave(h // g, dim=1).mT

    right = scores(w_q, w_k, rotate_halves)
    moved = halves_to_pairs(w_q, h, d_rotary), halves_to_pairs(w_k, g, d_rotary)
    torch.testing.assert_close(scores(*moved, rotate_pairs), right, atol=1e-12, rtol=0)
    assert torch.equal(pairs_to_halves(moved[0], h, d_rotary), w_q)
    assert torch.equal(pairs_to_halves(moved[1], g, d_rotary), w_k)
    bias = torch.randn(h * p)
    assert torch.equal(pairs_to_halves(halves_to_pairs(bias, h, d_rotary), h, d_rotary), bias)
    wrong = {
        "not reordered": scores(w_q, w_k, rotate_pairs),
        "keys with the heads of queries": scores(moved[0], halves_to_pairs(w_k, 4), rotate_pairs),
        "one of the two": scores(moved[0], w_k, rotate_pairs),
        "inverse": scores(pairs_to_halves(w_q, h), pairs_to_halves(w_k, g), rotate_pairs),
    }
    for name, found in wrong.items():
        assert (found - right).abs().max() > 0.1, name


def test_the_reordering_is_the_one_that_llamas_converters_do():
    """Rows viewed as (heads, 2, p/2) and transposed, as llama.cpp does on the way to GGUF."""
    w = torch.randn(6 * 8, 5)
    theirs = w.view(6, 2, 4, 5).swapaxes(1, 2).reshape(w.shape)
    assert torch.equal(halves_to_pairs(w, 6), theirs)


def test_casting_the_model_leaves_the_angles_alone():
    """Frequencies or angles in half precision are a bug that no shape shows."""
    x, far = heads(t=2), torch.tensor([[4000, 4001]])
    rotary = torch.nn.ModuleList([Rotary(rotary_frequencies(8))])
    right = rotary[0](x, far)
    rotary.half()
    assert rotary[0].frequencies.dtype == torch.float64
    assert torch.equal(rotary[0](x, far), right)
    half = rotary[0](x.half(), far)
    assert half.dtype == torch.float16
    assert (half - right).abs().max() < 0.01
    rounded = turn(x, far, rotary_frequencies(8).half().double())
    assert (rounded - right).abs().max() > 0.1, "fp16 inv_freq"
    angle = (far[..., None].half() * rotary_frequencies(8).half()).double()
    assert (rotate_halves(x, angle.cos(), angle.sin()) - right).abs().max() > 0.1, "fp16 angles"
    assert list(rotary.state_dict()) == [], "frequencies can be computed, so they are not stored"


def test_gradients(rotate):
    x = heads(t=3, b=1, h=1, p=6).requires_grad_()
    rotary = Rotary(rotary_frequencies(4), rotate=rotate, scale=1.3)
    assert torch.autograd.gradcheck(lambda x: rotary(x, torch.tensor([[2, 9, 4]])), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotary_frequencies(7), "d_rotary 7 is odd"),
        (lambda: rotary_frequencies(8, base=1), "base must be a number above 1"),
        (lambda: Rotary(torch.tensor([1.0, math.inf])), "frequencies must be finite"),
        (lambda: Rotary(rotary_frequencies(4), scale=0), "scale must be a number above 0"),
        (lambda: Rotary(rotary_frequencies(10))(heads(), ROW), "5 frequencies turn 10"),
        (lambda: pairs_from_halves(8, 10), "at most d_head 8, got 10"),
        (lambda: halves_to_pairs(torch.zeros(10, 3), 3), "10 rows cannot be cut into 3 heads"),
    ],
)  # fmt: skip
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
