from otter.test_files import test_case

OK_FORMAT = False

name = "q4_rotate"
points = 3

@test_case(points=None, hidden=False)
def test_turns(rotate):
    import torch
    from minillm.kernels import dispatch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(rotate(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} A lane is a pair: there are f of them in a row.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    assert dispatch.INTERPRETED, 'Triton is missing, or was imported before TRITON_INTERPRET was set: restart, then run the cells from the top'
    torch.manual_seed(0)
    x, angle = (torch.randn(4, 10), torch.randn(4, 5))
    given, cos, sin = (x.clone(), angle.cos(), angle.sin())
    out, traffic = run(given, cos, sin)
    assert out is not None, 'rotate returned nothing'
    assert not torch.equal(given, x), 'x is as it was: store the turned pairs where the old ones were'
    assert out.data_ptr() == given.data_ptr(), 'rotate must return x itself, turned in place: no new tensor'
    assert traffic.stored == 4 * x.numel(), 'the kernel stores every number of x once'
    x = x.double()

    def is_(pairs):
        return (out - pairs).abs().max() < 1e-05

    def turn(a, b, cos, sin):
        return (a * cos - b * sin, a * sin + b * cos)
    even, odd = (x[:, 0::2], x[:, 1::2])
    halves = torch.cat(turn(x[:, :5], x[:, 5:], cos, sin), 1)
    assert not is_(halves), 'you turned (x_i, x_{i+f}); the pairs here are neighbors, (x_2i, x_2i+1)'
    assert not is_(torch.stack(turn(even, odd, cos, -sin), -1).flatten(1)), 'the rotation goes the other way: mind the signs of the sine'
    assert not is_(torch.stack(turn(even, odd, cos[:1], sin[:1]), -1).flatten(1)), "every row has angles of its own: row i's start at i * f"
    first = even * cos - odd * sin
    assert not is_(torch.stack((first, first * sin + odd * cos), -1).flatten(1)), 'b was turned with the new a: load both numbers before storing either'
    exact = torch.view_as_real(torch.view_as_complex(torch.stack((even, odd), -1)) * torch.polar(torch.ones(4, 5).double(), angle.double())).flatten(1)
    gap = (out - exact).abs().max().item()
    assert gap < 1e-05, f'differs by {gap:.2g} from the product of complex numbers (a + ib)(cos + i sin)'

