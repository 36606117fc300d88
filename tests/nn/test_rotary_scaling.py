import math

import pytest
import torch

from minillm.nn import (
    DynamicRotary,
    Rotary,
    llama3_scaling,
    ntk_aware,
    ntk_by_parts,
    position_interpolation,
    rotary_frequencies,
    rotate_pairs,
    yarn,
    yarn_scale,
)

THETA = rotary_frequencies(64)


def heads(t, p=64):
    return torch.randn(1, 2, t, p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_interpolation_is_a_slower_clock():
    """Position 4 m with θ/4 is turned as position m with θ."""
    x = heads(5)
    slow = Rotary(position_interpolation(THETA, 4))(x, 4 * torch.arange(5)[None])
    torch.testing.assert_close(slow, Rotary(THETA)(x, torch.arange(5)[None]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("factor", [1, 2.5, 8])
def test_ntk_is_a_larger_base(factor):
    base = 10000 * factor ** (64 / 62)
    ours = ntk_aware(THETA, factor)
    torch.testing.assert_close(ours, rotary_frequencies(64, base=base), atol=0, rtol=1e-12)
    assert ours[0] == THETA[0], "the fastest pair keeps its frequency"
    assert ours[-1].item() == pytest.approx(THETA[-1].item() / factor), "the slowest is stretched"
    if factor > 1:
        wrong = rotary_frequencies(64, base=10000 * factor)  # the base times the factor
        assert (wrong / ours - 1).abs().max() > 1e-2


def test_by_parts_is_the_papers_definition():
    for slow, fast in ((1, 32), (1, 4), (2, 3)):
        ours = ntk_by_parts(THETA, 4, 1000, slow=slow, fast=fast)
        for theta, found in zip(THETA.tolist(), ours.tolist(), strict=True):
            turns = 1000 / (2 * math.pi / theta)  # trained length over wavelength
            if turns < slow:
                right = theta / 4
            elif turns > fast:
                right = theta
            else:
                keep = (turns - slow) / (fast - slow)
                right = (1 - keep) * theta / 4 + keep * theta
            assert found == pytest.approx(right, rel=1e-12)


def test_llama3_is_by_parts_with_1_and_4():
    theta = rotary_frequencies(128, base=500000.0)
    assert torch.equal(llama3_scaling(theta), ntk_by_parts(theta, 8, 8192, slow=1, fast=4))


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones():
    ours = yarn(THETA, 8, 1024)
    turns = 1024 * THETA / (2 * math.pi)
    assert (turns > 32).any() and (turns < 1).any()
    assert torch.equal(ours[turns > 32], THETA[turns > 32])
    close = {"atol": 0, "rtol": 1e-12}
    torch.testing.assert_close(ours[turns < 1][1:], THETA[turns < 1][1:] / 8, **close)
    between = (ours < THETA) & (ours > THETA / 8 * (1 + 1e-9))
    assert 3 < between.sum() < 20
    assert (ours.diff() < 0).all(), "frequencies still fall"
    parts = ntk_by_parts(THETA, 8, 1024)
    assert (ours / parts - 1).abs().max() > 0.1, "the code's ramp is not the paper's"


@pytest.mark.parametrize("rule", [ntk_aware, position_interpolation])
def test_factor_1_changes_nothing(rule):
    assert torch.equal(rule(THETA, 1), THETA)


@pytest.mark.parametrize("rule", [ntk_by_parts, yarn, llama3_scaling])
def test_factor_1_changes_nothing_up_to_rounding(rule):
    torch.testing.assert_close(rule(THETA, 1, 512), THETA, atol=0, rtol=1e-12)


def test_yarn_scale():
    assert yarn_scale(1) == 1
    assert yarn_scale(16) == pytest.approx(1 + 0.1 * math.log(16))


def test_dynamic_leaves_short_texts_alone_and_grows_with_long_ones():
    dynamic, x = DynamicRotary(64, 8), heads(8)
    assert torch.equal(dynamic(x, torch.arange(8)[None]), Rotary(THETA)(x, torch.arange(8)[None]))
    x, row = heads(24), torch.arange(24)[None]
    ntk = Rotary(ntk_aware(THETA, 3))
    torch.testing.assert_close(dynamic(x, row), ntk(x, row), atol=1e-12, rtol=0)
    twice = DynamicRotary(64, 8, factor=2)
    ntk = Rotary(ntk_aware(THETA, 5))  # 2 · 24/8 − 1
    torch.testing.assert_close(twice(x, row), ntk(x, row), atol=1e-12, rtol=0)
    assert (twice(x, row) - dynamic(x, row)).abs().max() > 0.1


def test_dynamic_turns_keys_of_a_cache_inconsistently():
    """Said in the docstring: a key turned when the text was short has another base."""
    dynamic, x = DynamicRotary(64, 8), heads(24)
    row = torch.arange(24)[None]
    whole = dynamic(x, row)
    assert (dynamic(x[:, :, :12], row[:, :12]) - whole[:, :, :12]).abs().max() > 0.1


def test_dynamic_in_the_other_layout():
    x, row = heads(20), torch.arange(20)[None]
    ours = DynamicRotary(64, 10, base=500, rotate=rotate_pairs)(x, row)
    right = Rotary(ntk_aware(rotary_frequencies(64, base=500), 2), rotate=rotate_pairs)(x, row)
    torch.testing.assert_close(ours, right, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: position_interpolation(THETA, 0.5), "factor is how many times longer.*0.5"),
        (lambda: ntk_aware(THETA[:1], 2), "one pair has no slower one"),
        (lambda: yarn(THETA, 2, 100, slow=4, fast=4), "0 < slow < fast turns, got 4 and 4"),
        (lambda: yarn(THETA.flip(0) ** 2 + 1, 2, 100), "fall geometrically"),
        (lambda: ntk_by_parts(THETA, 2, 0), "trained_len must be"),
        (lambda: DynamicRotary(2, 8), "one pair has no slower one"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
