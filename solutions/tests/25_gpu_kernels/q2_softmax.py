from otter.test_files import test_case

OK_FORMAT = False

name = "q2_softmax"
points = 3

@test_case(points=None, hidden=False)
def test_rows(softmax):
    import torch
    from minillm.kernels import dispatch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(softmax(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Lanes outside of the row must neither load nor store, and rows of y lie side by side.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    assert dispatch.INTERPRETED, 'Triton is missing, or was imported before TRITON_INTERPRET was set: restart, then run the cells from the top'
    torch.manual_seed(0)
    x = torch.randn(3, 11)
    out, traffic = run(x)
    right = x.double().softmax(-1)
    assert out is not None and out.shape == x.shape, 'softmax must return a tensor of the shape of x'
    assert traffic.stored >= 3 * 11 * 4, 'the kernel stored less than the answer: it has to write every number itself'
    padded = torch.cat([x, torch.zeros(3, 5)], 1).double().softmax(-1)[:, :11]
    assert (out - padded).abs().max() > 1e-05, 'lanes outside of the row took part as zeros: fill them with -inf'
    gap = (out - right).abs().max().item()
    assert gap == gap, 'NaN: is a row without a finite number, or an inf less an inf?'
    assert not 1e-06 < gap < 0.001, f'nearly right, off by {gap:.1g}: a sum or an exponential is in half precision'
    assert gap < 1e-06, f'wrong by {gap:.2g} on rows of 11 random numbers'

@test_case(points=None, hidden=False)
def test_large_and_half(softmax):
    import warnings
    import torch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(softmax(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Lanes outside of the row must neither load nor store, and rows of y lie side by side.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    warnings.simplefilter('ignore', RuntimeWarning)
    torch.manual_seed(1)
    x = 1000 * torch.randn(4, 9)
    gap = (run(x)[0] - x.double().softmax(-1)).abs().nan_to_num(1.0).max().item()
    assert gap < 1e-06, 'scores in the thousands overflow: subtract the maximum of the row before exp'
    x = torch.randn(4, 9) - 1000
    gap = (run(x)[0] - x.double().softmax(-1)).abs().nan_to_num(1.0).max().item()
    assert gap < 0.0001, 'scores around -1000: subtract the maximum of the row itself, also where it is negative'
    x = (3 * torch.randn(8, 60)).half()
    out, traffic = run(x)
    assert out.dtype == torch.float16, 'the result has the type of x'
    right = x.double().softmax(-1)
    gap = ((out.double() - right).abs() / right)[right > 0.001].max().item()
    assert gap < 0.0008, f'in float16 an entry is off by {gap:.2%}, one rounding is 0.05%: widen to float32 at the load'
    x = torch.randn(1, 3000).half()
    whole = run(x)[0].double().sum().item()
    assert abs(whole - 1) < 0.003, f'3000 float16 numbers add up to {whole:.3f} instead of 1: sum in float32'

@test_case(points=None, hidden=False)
def test_strided(softmax):
    import torch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(softmax(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Lanes outside of the row must neither load nor store, and rows of y lie side by side.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    torch.manual_seed(2)
    for n, d, wide in ((5, 7, 12), (3, 8, 8), (2, 1, 4), (4, 33, 40)):
        x = torch.randn(n, wide)[:, :d]
        out, traffic = run(x)
        gap = (out - x.double().softmax(-1)).abs().max().item()
        assert gap < 1e-06, f'wrong by {gap:.2g} for rows of {d} numbers that lie {wide} apart: row i of x starts at i * stride'

