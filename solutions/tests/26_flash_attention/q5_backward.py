from otter.test_files import test_case

OK_FORMAT = False

name = "q5_backward"
points = 4

@test_case(points=None, hidden=False)
def test_sum_of_tiles(tile_gradients):
    import torch
    torch.manual_seed(0)
    t, s, p, M, N = (8, 12, 5, 4, 6)
    q, k, v, do = (torch.randn(n, p, dtype=torch.float64) for n in (t, s, s, t))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    S = leaves[0] @ leaves[1].T / p ** 0.5
    out = S.softmax(1) @ leaves[2]
    dq, dk, dv = torch.autograd.grad((out * do).sum(), leaves)
    lse2, D = (S.detach().logsumexp(1) * 1.4426950408889634, (do * out.detach()).sum(1))
    sums = [torch.zeros_like(x) for x in (q, k, v)]
    for i in range(0, t, M):
        for j in range(0, s, N):
            r, c = (slice(i, i + M), slice(j, j + N))
            given = [x.clone() for x in (q[r], k[c], v[c], do[r], lse2[r], D[r])]
            copies = [x.clone() for x in given]
            parts = tile_gradients(*given, torch.ones(M, N, dtype=torch.bool))
            assert all(map(torch.equal, given, copies)), 'your function changed its inputs: leave them as they are'
            assert isinstance(parts, tuple | list) and len(parts) == 3, 'return three tensors: dq, dk, dv'
            shapes = [tuple(x.shape) for x in parts]
            assert shapes == [(M, p), (N, p), (N, p)], f'dq, dk, dv of a tile of {M} queries and {N} keys have the shapes {shapes}'
            for total, part, where in zip(sums, parts, (r, c, c)):
                total[where] += part
    assert (sums[2] - dv).abs().max() < 1e-09, 'dv is wrong: the transposed weights times do; a weight is 2^(score in base 2 - lse2)'
    for name, mine, right in (('dq', sums[0], dq), ('dk', sums[1], dk)):
        ratio = (mine / right).median().item()
        assert abs(ratio - p ** 0.5) > 1e-06, f'{name} lacks the factor 1/√p'
        assert abs(ratio - 1.4426950408889634) > 1e-06, f'{name} carries LOG2E: that factor belongs to the exponent, not to gradients'
        gap = (mine - right).abs().max().item()
        assert gap < 1e-09, f'{name} is off by {gap:.2g}: ds is weights * (do vᵀ - D), then ds k for dq and dsᵀ q for dk, each / √p'

@test_case(points=None, hidden=False)
def test_mask(tile_gradients):
    import torch
    torch.manual_seed(1)
    n, p = (6, 4)
    q, k, v, do = (torch.randn(n, p, dtype=torch.float64) for _ in range(4))
    seen = torch.ones(n, n).tril().bool()
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    S = (leaves[0] @ leaves[1].T / 2).masked_fill(~seen, -torch.inf)
    out = S.softmax(1) @ leaves[2]
    right = torch.autograd.grad((out * do).sum(), leaves)
    lse2, D = (S.detach().logsumexp(1) * 1.4426950408889634, (do * out.detach()).sum(1))
    parts = tile_gradients(q, k, v, do, lse2, D, seen)
    for name, mine, exact in zip(('dq', 'dk', 'dv'), parts, right):
        gap = (mine - exact).abs().max().item()
        assert gap < 1e-09, f'{name} is off by {gap:.2g} with a mask: weights of pairs that are not seen are 0'

@test_case(points=None, hidden=False)
def test_more_queries_than_keys(tile_gradients):
    import torch
    torch.manual_seed(3)
    t, s, p = (7, 4, 4)
    q, k, v, do = (torch.randn(n, p, dtype=torch.float64) for n in (t, s, s, t))
    seen = torch.ones(t, s).tril(s - t).bool()
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    S = (leaves[0] @ leaves[1].T / 2)[3:].masked_fill(~seen[3:], -torch.inf)
    out = S.softmax(1) @ leaves[2]
    right = torch.autograd.grad((out * do[3:]).sum(), leaves)
    lse2, D = (torch.full((t,), torch.inf).double(), torch.zeros(t).double())
    lse2[3:], D[3:] = (S.detach().logsumexp(1) * 1.4426950408889634, (do[3:] * out.detach()).sum(1))
    parts = tile_gradients(q, k, v, do, lse2, D, seen)
    for name, mine, exact in zip(('dq', 'dk', 'dv'), parts, right):
        assert mine.isfinite().all(), f'{name} holds NaN or infinity where a query sees no key: leave its lse2 = +inf as it is, then 2^(score - lse2) is 0'
        gap = (mine - exact).abs().max().item()
        assert gap < 1e-09, f'{name} is off by {gap:.2g} where three of seven queries see no key: they add nothing'

@test_case(points=None, hidden=True)
def test_rows_without_a_key(tile_gradients):
    import torch
    torch.manual_seed(2)
    q, k, v, do = (torch.randn(3, 4) for _ in range(4))
    seen = torch.tensor([[False] * 3, [True, False, False], [True, True, False]])
    S = (q @ k.T / 2).masked_fill(~seen, -torch.inf)
    lse2 = S.logsumexp(1) * 1.4426950408889634
    lse2[0] = torch.inf
    out = torch.nan_to_num(S.softmax(1)) @ v
    parts = tile_gradients(q, k, v, do, lse2, (do * out).sum(1), seen)
    assert all((x.isfinite().all() for x in parts)), 'a query without a key gives NaN or infinity: 2^(score - inf) is 0, if nothing else is done'
    assert (parts[0][0] == 0).all(), 'a query that sees no key has the gradient 0'
    dv = torch.nan_to_num(S.softmax(1)).T @ do
    assert (parts[2] - dv).abs().max() < 1e-05, 'dv is wrong where a query sees no key'

