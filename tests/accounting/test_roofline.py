"""The roofline against its definition, occupancy against NVIDIA's own worked numbers."""

import pytest

from minillm.accounting.roofline import (
    A100,
    DEVICES,
    H100,
    T4,
    attainable,
    least_seconds,
    occupancy,
    ridge,
)


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)
def test_both_bounds_meet_at_the_ridge(device):
    for kind, rate in device.rates.items():
        at = ridge(device, kind)
        assert attainable(device, at, kind) == pytest.approx(rate)
        assert attainable(device, at / 4, kind) == pytest.approx(rate / 4)
        assert attainable(device, at * 4, kind) == rate
        for flops in (1e9, 1e12, 1e15):  # time is FLOPs over what is attainable
            n_bytes = 1e9
            seconds = flops / attainable(device, flops / n_bytes, kind)
            assert least_seconds(device, n_bytes, flops, kind) == pytest.approx(seconds)


def test_published_numbers_agree_with_each_other():
    """FP32: two FLOPs a clock for each core, at the clock that NVIDIA publishes."""
    for device, cores, boost in ((T4, 64, 1.59e9), (A100, 64, 1.41e9), (H100, 128, 1.98e9)):
        computed = 2 * cores * device.sms * boost
        assert computed == pytest.approx(device.rate("fp32"), rel=0.02), device.name
    # bytes a second: width of the bus times the transfers of each line
    for device, bits, transfers in ((T4, 256, 10e9), (A100, 5120, 3.186e9), (H100, 5120, 5.2e9)):
        assert bits / 8 * transfers == pytest.approx(device.bandwidth, rel=0.02), device.name
    # tensor cores: FMAs a clock and multiprocessor
    for device, fmas, clock in ((T4, 512, 1.59e9), (A100, 1024, 1.41e9), (H100, 2048, 1.83e9)):
        assert 2 * fmas * device.sms * clock == pytest.approx(device.rate(), rel=0.02), device.name


def test_a_t4_has_no_bfloat16():
    with pytest.raises(ValueError, match="T4 has no rate for 'bf16'; choose fp32, fp16"):
        ridge(T4, "bf16")


@pytest.mark.parametrize(
    ("warps", "registers", "shared", "blocks", "limit"),
    [
        (4, 32, 0, 16, "warps"),  # 64 warps are full with 16 blocks of 4
        (1, 16, 0, 32, "blocks"),
        (4, 64, 0, 8, "registers"),  # 64 · 32 = 2048 a warp, 32 warps
        (4, 72, 0, 7, "registers"),  # 2304 a warp: 7 in each quarter
        (4, 65, 0, 7, "registers"),  # rounded up to 72
        (8, 255, 0, 1, "registers"),
        (4, 32, 100 << 10, 2, "shared memory"),
    ],
)
def test_what_limits_an_h100(warps, registers, shared, blocks, limit):
    found = occupancy(H100, warps, registers, shared)
    assert (found.blocks, found.limit) == (blocks, limit)
    assert found.warps == blocks * warps
    assert found.share == found.warps / 64


def test_a_t4_is_full_with_half_the_warps():
    assert occupancy(T4, 4, 64).share == 1.0  # as many registers for half as many warps
    assert occupancy(H100, 4, 64).share == 0.5


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: occupancy(H100, 33, 32), "1 to 32 warps, not 33"),
        (lambda: occupancy(H100, 4, 256), "1 to 255 registers, not 256"),
        (lambda: occupancy(T4, 4, 32, 70_000), "T4 has 65536"),
        (lambda: attainable(H100, -1), "intensity is -1"),
        (lambda: least_seconds(H100, -1, 0), "at least 0"),
    ],
)
def test_wrong_numbers_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
