from otter.test_files import test_case

OK_FORMAT = False

name = "q4_cache_bug"
points = 3

@test_case(points=None, hidden=False)
def test_one_new_token(newest):
    import math
    import torch
    from minillm.nn import RelativeBias, scaled_dot_product_attention
    torch.manual_seed(0)
    n, p, buckets = (11, 5, 8)
    q, k, v = torch.randn(3, 3, n, p, dtype=torch.float64)
    table = torch.randn(buckets, 3, dtype=torch.float64)
    q = q[:, -1:]
    out = newest(q.clone(), k.clone(), v.clone(), table.clone())
    assert out is not None, 'newest returned nothing'
    assert out.shape == (3, 1, p), f'the result has shape {tuple(out.shape)}, (3, 1, {p}) is expected'
    flat = newest(q, k, v, torch.zeros_like(table))
    usual = scaled_dot_product_attention(q[None], k[None], v[None])[0]
    assert not torch.allclose(flat, usual), 'with a table of zeros you get ordinary attention: T5 does not divide the scores by √p'
    assert not torch.allclose(flat, v[:, :1].expand_as(flat)), 'the newest token sees nothing but token 0: its place is n − 1, not 0'
    both = RelativeBias(3, bidirectional=True, n_buckets=buckets)
    both.weight.data = table
    behind = torch.arange(n)[None] - (n - 1)
    two_sided = scaled_dot_product_attention(q[None], k[None], v[None], bias=both(behind), scale=1.0)[0]
    assert not torch.allclose(out, two_sided), 'a decoder has all its buckets for the past; yours keeps half of them for keys that it never sees'
    for h in range(3):
        scores = []
        for j in range(n):
            far = n - 1 - j
            bucket = far if far < 4 else min(4 + int(math.log(far / 4) / math.log(128 / 4) * 4), 7)
            scores.append(q[h, 0] @ k[h, j] + table[bucket, h])
        row = torch.stack(scores).softmax(0) @ v[h]
        assert torch.allclose(out[h, 0], row, atol=1e-09), f"head {h} of the newest token is off by {(out[h, 0] - row).abs().max():.2g}: the score of key j is q·k plus the table's number for the distance j − (n − 1)"

@test_case(points=None, hidden=False)
def test_piece_by_piece(newest):
    import torch
    torch.manual_seed(1)
    n, p = (12, 4)
    q, k, v = torch.randn(3, 2, n, p, dtype=torch.float64)
    table = torch.randn(6, 2, dtype=torch.float64)
    whole = newest(q, k, v, table)
    again = newest(q, k, torch.cat([v[:, :-1], v[:, -1:] + 5], dim=1), table)
    assert torch.allclose(whole[:, :-1], again[:, :-1]), 'a token sees a later one'
    for m in (1, 3, 11):
        part = newest(q[:, -m:], k, v, table)
        assert torch.allclose(part, whole[:, -m:], atol=1e-09), f'the last {m} of {n} tokens differ by {(part - whole[:, -m:]).abs().max():.2g} when they are computed alone: where do their queries stand?'

