"""Schedules: closed forms at the corners, transformers' curves, and the step-0 trap."""

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from minillm.training import schedules


def hf_multipliers(make, n, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **options)
    rates = []
    for _ in range(n):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedules.warmup_cosine, get_cosine_schedule_with_warmup),
        (schedules.warmup_linear, get_linear_schedule_with_warmup),
    ],
)
def test_equals_transformers_shifted_by_one(ours, theirs):
    """transformers begins at 0/warmup and ends one before 0; ours has neither idle update."""
    steps, warmup = 50, 7
    schedule = ours(steps, warmup, final=0.0)
    expected = hf_multipliers(
        theirs, steps + 1, num_warmup_steps=warmup, num_training_steps=steps - 1
    )
    # After warmup both fall from 1 to 0 over the same updates.
    assert [schedule(i) for i in range(warmup, steps)] == pytest.approx(expected[warmup:steps])
    # During warmup ours is one update ahead.
    assert [schedule(i) for i in range(warmup)] == pytest.approx(expected[1 : warmup + 1])


@pytest.mark.parametrize("make", [schedules.warmup_cosine, schedules.warmup_linear])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (10, 0), (10, 9), (100, 10)])
def test_first_and_last_update(make, steps, warmup):
    schedule = make(steps, warmup, final=0.2)
    assert schedule(0) == pytest.approx(1 / warmup if warmup else 1)
    if steps - warmup > 1:
        assert schedule(steps - 1) == pytest.approx(0.2)
        assert schedule(steps + 5) == pytest.approx(0.2)
    rates = [schedule(i) for i in range(steps)]
    assert max(rates) == pytest.approx(1) and min(rates) > 0
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_cosine_is_half_way_in_the_middle():
    schedule = schedules.warmup_cosine(101, 0, final=0.1)
    assert schedule(50) == pytest.approx(0.55)
    assert schedule(25) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


def test_noam_peaks_at_warmup_and_survives_step_0():
    schedule = schedules.noam(512, 4000)
    rates = [schedule(i) for i in range(8000)]
    assert rates.index(max(rates)) == 3999
    assert max(rates) == pytest.approx((512 * 4000) ** -0.5)
    assert rates[0] == pytest.approx(512**-0.5 * 4000**-1.5) and rates[0] > 0
    assert schedule(15_999) == pytest.approx(max(rates) / 2)  # falls as 1/√n


def test_wsd_is_flat_then_falls_to_final():
    schedule = schedules.wsd(100, 10, 20, final=0.1)
    rates = [schedule(i) for i in range(100)]
    assert rates[9:80] == [1.0] * 71
    assert rates[80] == pytest.approx(1 - 0.9 / 20) and rates[99] == pytest.approx(0.1)
    assert schedule(500) == pytest.approx(0.1)


def test_constant():
    assert [schedules.constant(4)(i) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert schedules.constant()(0) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.warmup_cosine(0), "steps is 0"),
        (lambda: schedules.warmup_linear(-3), "steps is -3"),
        (lambda: schedules.warmup_cosine(10, 10), "warmup is 10"),
        (lambda: schedules.constant(-1), "warmup is -1"),
        (lambda: schedules.warmup_cosine(10, 1, 1.5), "final is 1.5"),
        (lambda: schedules.warmup_cosine(10, 1, math.nan), "final is nan"),
        (lambda: schedules.wsd(10, 2, 0), "decay is 0; give 1 to 8"),
        (lambda: schedules.wsd(10, 2, 9), "decay is 9; give 1 to 8"),
        (lambda: schedules.noam(0, 5), "d_model is 0"),
        (lambda: schedules.noam(5, 0), "warmup 0"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
