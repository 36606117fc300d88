from otter.test_files import test_case

OK_FORMAT = False

name = "q2_grouped"
points = 3

@test_case(points=None, hidden=False)
def test_neighbors_share(grouped):
    import math
    import torch
    from torch.nn import functional as F
    torch.manual_seed(0)
    q = torch.randn(6, 5, 4, dtype=torch.float64)
    k, v = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    given = [y.clone() for y in (q, k, v)]
    out = grouped(*given)
    assert out is not None, 'grouped returned nothing: is the `return` missing?'
    assert all(map(torch.equal, given, (q, k, v))), 'your function changed its input: leave it as it is'
    assert tuple(out.shape) == (6, 5, 4), f'the result must have the shape of q, not {tuple(out.shape)}'

    def attend(k, v, scale=4 ** (-0.5), causal=True):
        scores = q @ k.mT * scale
        hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
        return (scores.masked_fill(hidden, -math.inf) if causal else scores).softmax(-1) @ v

    def near(a, b):
        return (torch.repeat_interleave(a, 3, 0), torch.repeat_interleave(b, 3, 0))
    tiled = attend(k.repeat(3, 1, 1), v.repeat(3, 1, 1))
    wrong = {'head i reads key head i mod g here: neighbors share, so 0 0 0 1 1 1, not 0 1 0 1 0 1': tiled, 'the scores are not divided by the root of p': attend(*near(k, v), scale=1.0), 'the scores are divided by p, not by its root': attend(*near(k, v), scale=0.25), 'the scores are divided by the root of h · p; a head has p numbers': attend(*near(k, v), scale=24 ** (-0.5)), 'every token sees all tokens: hide the later ones': attend(*near(k, v), causal=False), 'values go with their keys: both are repeated in the same way': attend(near(k, v)[0], v.repeat(3, 1, 1)), 'all query heads read the first key head: that is multi-query attention': attend(k[:1], v[:1])}
    raw, values = (q @ near(k, v)[0].mT / 2, near(k, v)[1])
    seen = torch.ones(5, 5, dtype=torch.bool).tril()

    def masked(hidden, axis=-1):
        return raw.masked_fill(hidden, -math.inf).softmax(axis) @ values
    wrong |= {'the mask is the wrong way round: a token sees itself and the later ones here': masked(seen & ~seen.mT), "the softmax runs over the queries (axis -2); each query's weights over the keys sum to 1": masked(~seen, -2), 'later tokens are set to 0 after the softmax: the weights no longer sum to 1': raw.softmax(-1) * seen @ values, 'a score of 0 hides nothing: later tokens need a score of minus infinity': (raw * seen).softmax(-1) @ values}
    for message, y in wrong.items():
        assert not (out - y).abs().max() < 1e-09, message
    itself, later = ((out - masked(~seen | seen.mT))[:, 1:], (out - masked(seen))[:, :-1])
    assert not itself.abs().max() < 1e-09, 'a token sees itself too: the mask hides only what is above the diagonal'
    assert not later.abs().max() < 1e-09, 'the mask is the wrong way round: a token sees only the later ones here'
    right = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]
    gap = (out - right).abs().max().item()
    assert gap < 1e-09, f"differs from PyTorch's grouped attention by {gap:.2g}"

