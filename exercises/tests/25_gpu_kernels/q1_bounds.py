from otter.test_files import test_case

OK_FORMAT = False

name = "q1_bounds"
points = 2

@test_case(points=None, hidden=False)
def test_bytes(n_bytes, least_us):
    one = 8192 * 4096 * 2
    assert isinstance(n_bytes, int | float), 'n_bytes is still to be answered: a number'
    assert isinstance(least_us, int | float), 'least_us is still to be answered: a number'
    assert n_bytes != 2 * one, 'two tensors come in, and two go out: the sum is returned as well'
    assert n_bytes != 3 * one, 'a tensor is missing: x and residual come in, the normed sum and the sum go out'
    assert not 4 * one < n_bytes < 4.1 * one, 'leave out the weight: count x, residual and the two results'
    assert n_bytes != 8 * one, 'a number of 16 bits takes 2 bytes, not 4'
    assert n_bytes == sum((one for _ in ('x', 'residual', 'normed', 'sum'))), 'each of four tensors passes through memory once'
    right = 4 * one / 2000000000000.0 * 1000000.0
    assert abs(least_us * 1000000.0 - right) > 0.001, 'that is in seconds; microseconds are asked for'
    assert abs(least_us * 1000.0 - right) > 0.001, 'that is in milliseconds; microseconds are asked for'
    assert abs(least_us - right) < 0.5, 'bytes divided by bytes a second, then in microseconds'

@test_case(points=None, hidden=False)
def test_ridge_and_warps(ridge, warps):
    assert isinstance(ridge, int | float), 'ridge is still to be answered: a number'
    assert isinstance(warps, int | float), 'warps is still to be answered: a number'
    assert abs(ridge - 2 / 300) > 1e-06, 'the other way round: FLOPs a byte, not bytes a FLOP'
    assert abs(ridge - 150) < 1e-06, 'FLOPs a second divided by bytes a second'
    assert warps != 21, '65,536 / 3072 is 21.3, but each part of 16,384 registers holds whole warps, and blocks come whole'
    assert warps != 20, 'twenty warps would have registers, but blocks come whole: eight at a time'
    assert warps != 24, 'each of the four parts holds five warps of 3072 registers: 20 in all, and then whole blocks'
    assert warps != 64, '64 warps would leave 32 registers a thread; this kernel takes 96'
    assert warps != 5, 'five warps are what one of the four parts has registers for; blocks spread over all four'
    assert warps != 2, 'that is blocks; warps are asked for'
    held = max((b * 8 for b in range(9) if b * 8 <= 4 * (16384 // (96 * 32))))
    assert warps == held, 'registers of a warp, warps of a part, parts, and then whole blocks of 8'

