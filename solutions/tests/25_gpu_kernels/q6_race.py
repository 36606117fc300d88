from otter.test_files import test_case

OK_FORMAT = False

name = "q6_race"
points = 4

@test_case(points=None, hidden=False)
def test_no_race(column_sums):
    import torch
    from minillm.kernels import dispatch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(column_sums(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f"{str(error).split(', or use')[0]}") from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    assert dispatch.INTERPRETED, 'Triton is missing, or was imported before TRITON_INTERPRET was set: restart, then run the cells from the top'
    torch.manual_seed(0)
    x = torch.randn(7, 37)
    out, traffic = run(x)
    assert out is not None and out.shape == (37,), 'one sum for each of the 37 columns'
    assert traffic.atomics == 0, 'atomic additions are correct but come in any order: give every column one writer'
    gap = (out - x.double().sum(0)).abs().max().item()
    last = (out - x[:-1].double().sum(0)).abs().max().item()
    assert last > 1e-05, 'the last row is missing: the loop runs over all n rows'
    first = (out - x[1:].double().sum(0)).abs().max().item()
    assert first > 1e-05, 'the first row is missing: the loop starts at 0'
    assert gap == gap and gap < 1e-05, f'the sums are off by {gap:.2g}: does every program cover its own columns, the last ones included?'
    assert len(traffic.launches) == 1, 'one launch for all rows: a program walks over the rows itself'
    assert traffic.programs > 1, 'one program does all the work: with blocks of 16 columns, 37 columns take three'
    assert traffic.programs == 3, f'37 columns in blocks of 16 take three programs; yours are {traffic.programs}'
    assert run(x, 8)[1].programs == 5, 'with columns=8 there are five blocks: the grid follows from d and columns'
    assert traffic.loaded <= 4 * x.numel(), 'each number of x is read once; yours loads more'

@test_case(points=None, hidden=True)
def test_half_and_sizes(column_sums):
    import torch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(column_sums(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f"{str(error).split(', or use')[0]}") from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    torch.manual_seed(1)
    for n, d, columns in ((1, 5, 16), (6, 32, 16), (3, 70, 32), (300, 9, 8)):
        x = (10 + torch.randn(n, d)).half()
        out, traffic = run(x, columns)
        assert out.dtype == torch.float32, 'the result is float32'
        assert traffic.atomics == 0 and traffic.programs == -(-d // columns), 'one program for each block of columns, and no atomics'
        right = x.double().sum(0)
        gap = ((out - right).abs() / right).max().item()
        assert gap < 1e-05, f'a sum of {n} float16 numbers is off by {gap:.2%}: widen what is loaded, and add in float32'

