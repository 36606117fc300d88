from otter.test_files import test_case

OK_FORMAT = False

name = "q2_join"
points = 2

@test_case(points=None, hidden=False)
def test_join(join):
    import torch
    torch.manual_seed(0)
    S, v = (4 * torch.randn(5, 9, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64))

    def triple(part):
        m = S[:, part].amax(1)
        weights = (S[:, part] - m[:, None]).exp()
        return (m, weights.sum(1), weights @ v[part])
    one, two = (triple(slice(0, 4)), triple(slice(4, 9)))
    given = [tuple((x.clone() for x in part)) for part in (one, two)]
    out = join(*given)
    assert isinstance(out, tuple | list) and len(out) == 3, 'return three tensors: m, l, a'
    m, l, a = out
    same = all((torch.equal(x, y) for part, copy in zip((one, two), given) for x, y in zip(part, copy)))
    assert same, 'your function changed the triples it was given: make new tensors'
    assert tuple(m.shape) == (5,), f'm must be one number a query, (5,), not {tuple(m.shape)}'
    assert (m - S.amax(1)).abs().max() < 1e-12, 'm is the larger of the two maxima, for each query by itself'
    assert tuple(l.shape) == (5,) and tuple(a.shape) == (5, 3), f'l is (t,) and a is (t, p), not {tuple(l.shape)} and {tuple(a.shape)}'
    right = triple(slice(0, 9))
    assert (l - one[1] - two[1]).abs().max() > 1e-06, 'the sums l were added as they are: measure both from the new maximum first'
    assert (l - right[1]).abs().max() < 1e-09, 'l is wrong: multiply each old sum by e^(its old maximum - new maximum), then add'
    assert (a - one[2] - two[2]).abs().max() > 1e-06, 'a shrinks by the same factor as l, and yours was added as it is'
    means = (one[2] / one[1][:, None] + two[2] / two[1][:, None]) / 2
    assert (a - means).abs().max() > 1e-06, 'a is a sum, not an average: nothing is divided before the end'
    assert (a - right[2]).abs().max() < 1e-09, 'a is wrong: multiply each old sum by the factor of its own part, then add'
    attention = (S.softmax(1) @ v - a / l[:, None]).abs().max()
    assert attention < 1e-09, f'a / l differs from softmax(S) v by {attention:.2g}'

@test_case(points=None, hidden=False)
def test_empty_parts(join):
    import torch
    m = torch.tensor([0.5, -torch.inf], dtype=torch.float64)
    l, a = (torch.tensor([1.5, 0.0]).double(), torch.tensor([[2.0, 1.0], [0.0, 0.0]]).double())
    empty = (torch.full((2,), -torch.inf).double(), torch.zeros(2).double(), torch.zeros(2, 2).double())
    for out in (join((m, l, a), empty), join(empty, (m, l, a))):
        assert not any((x.isnan().any() for x in out)), 'where both parts are empty you subtract -inf from -inf: that is NaN'
        assert out[0][1] == -torch.inf, 'two empty parts have the maximum -inf'
        assert (out[1] - l).abs().max() < 1e-12 and (out[2] - a).abs().max() < 1e-12, 'joining an empty part must change nothing'

@test_case(points=None, hidden=False)
def test_low_and_high_scores(join):
    import torch
    torch.manual_seed(2)
    noise, v = (4 * torch.randn(5, 9, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64))
    for shift in (1000.0, -1000.0, 2000000000000.0, -2000000000000.0):
        S = noise + shift

        def triple(part):
            m = S[:, part].amax(1)
            weights = (S[:, part] - m[:, None]).exp()
            return (m, weights.sum(1), weights @ v[part])
        m, l, a = join(triple(slice(0, 4)), triple(slice(4, 9)))
        where = f'for scores around {shift:.0e}'
        assert l.isfinite().all() and a.isfinite().all(), f'NaN or infinity {where}: subtract the new maximum in the exponent, do not divide by its power'
        assert (m - S.amax(1)).abs().max() < 1e-12, f'm is not the larger maximum {where}'
        right = triple(slice(0, 9))
        assert (l - right[1]).abs().max() < 1e-09, f'l is wrong {where}: only -inf may be replaced by something else, no other score, however low'
        assert (a - right[2]).abs().max() < 1e-09, f'a is wrong {where}, though l is right: the factors of a are those of l'

