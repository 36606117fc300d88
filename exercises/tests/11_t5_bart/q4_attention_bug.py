from otter.test_files import test_case

OK_FORMAT = False

name = "q4_attention_bug"
points = 3

@test_case(points=None, hidden=False)
def test_encoder(t5_attention):
    import torch
    from minillm.nn import RelativeBias, distances, scaled_dot_product_attention
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 3, 9, 5, dtype=torch.float64)
    table = torch.randn(8, 3, dtype=torch.float64)
    out = t5_attention(q.clone(), k.clone(), v.clone(), table.clone(), False)
    assert out is not None, 't5_attention returned nothing'
    assert out.shape == (3, 9, 5), f'the result has shape {tuple(out.shape)}, (3, 9, 5) is expected'
    flat = t5_attention(q, k, v, torch.zeros_like(table), False)
    assert not torch.allclose(flat, scaled_dot_product_attention(q[None], k[None], v[None])[0]), 'with a table of zeros you get ordinary attention: T5 does not divide the scores by √p'
    relative = RelativeBias(3, bidirectional=True, n_buckets=8)
    relative.weight.data = table
    bias = relative(distances(9))
    right = scaled_dot_product_attention(q[None], k[None], v[None], bias=bias, scale=1.0)[0]
    turned = scaled_dot_product_attention(q[None], k[None], v[None], bias=bias.mT, scale=1.0)[0]
    assert not torch.allclose(out, turned), 'before and after are exchanged: the sign of the distance'
    past = RelativeBias(3, bidirectional=False, n_buckets=8)
    past.weight.data = table
    for one_sided in (past(distances(9)), past(distances(9)).mT):
        wrong = scaled_dot_product_attention(q[None], k[None], v[None], bias=one_sided, scale=1.0)[0]
        assert not torch.allclose(out, wrong), 'an encoder looks both ways: half of its buckets are for keys before the query, half for keys behind it; yours has all of them for one side'
    assert torch.allclose(out, right, atol=1e-09), f"an encoder's result differs by {(out - right).abs().max():.2g} from attention with the bias added to the scores"

@test_case(points=None, hidden=False)
def test_decoder(t5_attention):
    import math
    import torch
    torch.manual_seed(1)
    n, p, buckets = (12, 4, 6)
    q, k, v = torch.randn(3, 2, n, p, dtype=torch.float64)
    table = torch.randn(buckets, 2, dtype=torch.float64)
    out = t5_attention(q.clone(), k.clone(), v.clone(), table.clone(), True)
    again = t5_attention(q, k, torch.cat([v[:, :-1], v[:, -1:] + 5], dim=1), table, True)
    assert torch.allclose(out[:, :-1], again[:, :-1]), "a decoder's token sees a later one"
    for h in range(2):
        for i in range(n):
            scores = []
            for j in range(i + 1):
                far = i - j
                bucket = far if far < 3 else min(3 + int(math.log(far / 3) / math.log(128 / 3) * 3), 5)
                scores.append(q[h, i] @ k[h, j] + table[bucket, h])
            row = torch.stack(scores).softmax(0) @ v[h, :i + 1]
            assert torch.allclose(out[h, i], row, atol=1e-09), f'token {i} of a decoder is off by {(out[h, i] - row).abs().max():.2g}: a decoder has all its buckets for the past (and nothing is divided by √p)'

