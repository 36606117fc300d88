from otter.test_files import test_case

OK_FORMAT = False

name = "q3_tiles"
points = 3

@test_case(points=None, hidden=False)
def test_output(attend):
    import torch
    torch.manual_seed(0)
    q, k, v = (torch.randn(n, 5, dtype=torch.float64) for n in (12, 24, 24))
    given = [x.clone() for x in (q, k, v)]
    result = attend(*given, 4, 8)
    assert isinstance(result, tuple | list) and len(result) == 2, 'return two tensors: out and lse2'
    out = result[0]
    assert all(map(torch.equal, given, (q, k, v))), 'your function changed its inputs: leave them as they are'
    assert tuple(out.shape) == (12, 5), f'out has the shape of q, (12, 5), not {tuple(out.shape)}'
    S = q @ k.T / 5 ** 0.5
    right = torch.nn.functional.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None])[0, 0]

    def is_(y):
        return (out - y).abs().max() < 1e-07
    assert not is_((q @ k.T).softmax(1) @ v), 'the scale 1/√p is missing'
    assert not is_((q @ k.T / 5).softmax(1) @ v), 'scores are divided by √p, not by p'
    in_base_2 = torch.softmax(S * torch.log(torch.tensor(2.0).double()), 1) @ v
    assert not is_(in_base_2), '2 to the score is not e to the score: the scale carries LOG2E'
    parts = [S[:, j:j + 8].softmax(1) @ v[j:j + 8] for j in (0, 8, 16)]
    assert not is_(sum(parts)) and (not is_(sum(parts) / 3)), 'each tile was normalized by itself: divide once, behind the loop over keys'
    assert not is_(parts[-1]), 'only the last tile of keys is left: what came before has to be kept'
    gap = (out - right).abs().max().item()
    assert gap < 1e-09, f'wrong by {gap:.2g}: when the maximum rises, the sum *and* the accumulator shrink by 2^(old - new)'

@test_case(points=None, hidden=False)
def test_log_sum_exp(attend):
    import torch
    torch.manual_seed(1)
    q, k, v = (torch.randn(n, 4, dtype=torch.float64) for n in (6, 10, 10))
    lse2 = attend(q, k, v, 3, 5)[1]
    right = (q @ k.T / 2).logsumexp(1)
    assert tuple(lse2.shape) == (6,), f'lse2 is one number a query, (6,), not {tuple(lse2.shape)}'
    assert (lse2 - right).abs().max() > 1e-06, 'that is the natural logarithm: lse2 is in base 2'
    mixed = (lse2 * 0.6931471805599453 - right).abs().max().item()
    assert mixed < 1e-09, f'lse2 is off by {mixed:.2g}: it is the maximum plus log2 of the sum, both in base 2'

@test_case(points=None, hidden=False)
def test_sizes_and_memory(attend):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    t, s, p, M, N = (41, 509, 3, 8, 16)

    class Shapes(TorchDispatchMode):
        scores, fused, found = (0, '', ())

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **kwargs or {})
            name = op.overloadpacket.__name__
            self.fused = name if 'attention' in name else self.fused
            for x in out if isinstance(out, tuple | list) else (out,):
                vectors = isinstance(x, torch.Tensor) and p in x.shape and (x.numel() <= (s + N) * p)
                if isinstance(x, torch.Tensor) and (not vectors) and (x.numel() > self.scores):
                    self.scores, self.found = (x.numel(), tuple(x.shape))
            return out
    torch.manual_seed(2)
    q, k, v = (torch.randn(n, p, dtype=torch.float64) for n in (t, s, s))
    with Shapes() as seen:
        out, lse2 = attend(q, k, v, M, N)
    S = q @ k.T / p ** 0.5
    missing = S[:, :496].softmax(1) @ v[:496]
    assert (out - missing).abs().max() > 1e-06, 'the last keys were dropped: 509 is not a multiple of 16, and 13 keys remain'
    gap = (out - S.softmax(1) @ v).abs().max().item()
    assert gap < 1e-09, f'wrong by {gap:.2g} for 41 queries and 509 keys in tiles of 8 and 16'
    assert not seen.fused, f"PyTorch's {seen.fused} did the work: write it with products of tiles"
    assert seen.scores <= M * N, f'a tensor of the shape {seen.found} was made for M = 8 and N = 16: hold one tile of 8 × 16 scores at a time'
    assert seen.scores == M * N, f'your largest tile of scores has the shape {seen.found}: take M = 8 queries and N = 16 keys at once'

@test_case(points=None, hidden=False)
def test_large_scores_and_types(attend):
    import torch
    torch.manual_seed(3)
    for dtype, close in ((torch.float32, 0.001), (torch.float64, 1e-09)):
        for shift in (0.0, 2000.0, -2000.0):
            q, k, v = (torch.randn(n, 4, dtype=dtype) * 20 for n in (9, 33, 33))
            q[:, 0], k[:, 0] = (20.0, shift / 10)
            out, lse2 = attend(q, k, v / 20, 4, 8)
            S = q.double() @ k.double().T / 2
            assert out.isfinite().all() and lse2.isfinite().all(), f'NaN or infinity for scores from {S.min():.0f} to {S.max():.0f}: subtract the maximum seen so far before 2^x'
            gap = (out - S.softmax(1) @ v.double() / 20).abs().max().item()
            assert gap < close, f'wrong by {gap:.2g} for scores from {S.min():.0f} to {S.max():.0f}: measure every sum from the running maximum'
            assert out.dtype == dtype, f'out has the type of q, {dtype}, not {out.dtype}'
            assert lse2.dtype == dtype, f'for inputs in {dtype} lse2 is of that type too, not {lse2.dtype}'
    q, k = (torch.zeros(3, 4).half(), torch.randn(5000, 4).half())
    out, lse2 = attend(q, k, torch.ones(5000, 4).half(), 3, 2)
    assert out.dtype == torch.float16, f'out has the type of q, float16, not {out.dtype}'
    assert lse2.dtype == torch.float32, f'lse2 stays in float32, not {lse2.dtype}: half precision would spoil the backward pass'
    said = f'lse2 is {lse2[0]:.3f} and not {12.2877:.3f} for 5000 equal weights in float16'
    assert (lse2 - 12.2877).abs().max() < 0.001, f'{said}: 4096 + 2 is 4096 in half precision; keep the sum in float32'
    gap = (out.double() - 1).abs().max().item()
    assert gap < 0.001, f'the average of 5000 ones is off by {gap:.2g} in float16: keep the accumulator in float32'

