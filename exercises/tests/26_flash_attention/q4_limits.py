from otter.test_files import test_case

OK_FORMAT = False

name = "q4_limits"
points = 3

@test_case(points=None, hidden=False)
def test_square(limits):
    import torch
    t, M, N = (24, 8, 4)
    seen = torch.ones(t, t).tril().bool()
    for start in range(0, t, M):
        result = limits(start, t, t, M, N)
        assert isinstance(result, tuple | list) and len(result) == 2, 'return two integers: full, stop'
        assert all((isinstance(x, int) for x in result)), f'full and stop are Python integers, not {result}: // rounds down, / makes a float'
        full, stop = result
        where = f'for queries {start} to {start + M - 1} of {t}, M = {M}, N = {N}'
        rows = seen[start:start + M]
        assert not rows[:, stop:].any(), f'stop = {stop} {where} loses keys that some query sees: the diagonal is part of the tile'
        assert stop == int(rows.any(0).sum()), f'stop = {stop} {where}: no query sees key {stop - 1}, so its tile is computed in vain'
        assert full % N == 0, f'full = {full} {where} is not a whole number of tiles of {N} keys'
        assert rows[:, :full].all(), f'full = {full} {where}: some query does not see all of these keys, so the mask is needed there'
        right = int(rows.all(0).sum()) // N * N
        assert full == right, f'full = {full} {where}: {right} keys are seen by every query, so more tiles can go without a mask'

@test_case(points=None, hidden=False)
def test_fewer_and_more_queries_than_keys(limits):
    import torch
    for t, s, M, N in ((5, 30, 4, 8), (16, 40, 8, 8), (1, 33, 16, 16), (30, 5, 8, 4), (9, 6, 3, 2)):
        seen = torch.ones(t, s).tril(s - t).bool()
        for start in range(0, t, M):
            full, stop = limits(start, t, s, M, N)
            rows = seen[start:start + M]
            case = f'for t = {t}, s = {s}, start = {start}, M = {M}, N = {N}: full = {full}, stop = {stop}'
            assert full >= 0 and stop >= 0, f'{case}: with more queries than keys a count can become negative; at least 0'
            assert not rows[:, stop:].any(), f'{case} loses keys: query i stands at position s - t + i, not at i'
            assert stop <= s, f'{case}: there are only {s} keys'
            assert stop == int(rows.any(0).sum()), f'{case}: no query sees key {stop - 1}'
            assert full == int(rows.all(0).sum()) // N * N, f'{case}: wrong number of tiles without a mask; count what the first query sees'

