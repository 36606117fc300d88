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

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **kwargs or {})
            if isinstance(out, torch.Tensor):
                self.size = max(self.size, out.numel())
            return out
    torch.manual_seed(2)
    q, k, v = (torch.randn(n, 4, dtype=torch.float64) for n in (41, 57, 57))
    with Largest() as seen:
        out, lse2 = attend(q, k, v, 8, 16)
    S = q @ k.T / 2
    missing = S[:, :48].softmax(1) @ v[:48]
    assert (out - missing).abs().max() > 1e-06, 'the last keys were dropped: 57 is not a multiple of 16, and 9 keys remain'
    gap = (out - S.softmax(1) @ v).abs().max().item()
    assert gap < 1e-09, f'wrong by {gap:.2g} for 41 queries and 57 keys in tiles of 8 and 16'
    assert seen.size < 41 * 16, f'a tensor of {seen.size} numbers was made: keep only one tile of 8 x 16 scores at a time'

