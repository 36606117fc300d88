from otter.test_files import test_case

OK_FORMAT = False

name = "q6_cache_bug"
points = 3

@test_case(points=None, hidden=False)
def test_one_go(attend_next):
    import torch
    from minillm.nn import Rotary, rotary_frequencies
    torch.manual_seed(0)
    theta, row = (rotary_frequencies(8), torch.arange(6)[None])
    q, k, v = torch.randn(3, 1, 2, 6, 8, dtype=torch.float64)
    rotary = Rotary(theta)
    right = torch.nn.functional.scaled_dot_product_attention(rotary(q, row), rotary(k, row), v, is_causal=True)
    cache = {}
    out = attend_next(q, k, v, cache, theta)
    assert tuple(out.shape) == (1, 2, 6, 8), f'the result must have the shape of q, (1, 2, 6, 8), not {tuple(out.shape)}'
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert not torch.allclose(out, plain), 'queries and keys are not turned any more'
    assert torch.allclose(out, right, atol=1e-09), 'the whole text in one call was right before: what changed there?'
    assert set(cache) == {'k', 'v'} and cache['k'].shape[2] == 6, 'after a call the cache must hold the keys, "k", and values, "v", of all tokens'

@test_case(points=None, hidden=False)
def test_token_by_token(attend_next):
    import torch
    from minillm.nn import Rotary, rotary_frequencies
    torch.manual_seed(1)
    theta, row, rotary = (rotary_frequencies(8), torch.arange(7)[None], Rotary(rotary_frequencies(8)))
    q, k, v = torch.randn(3, 1, 2, 7, 8, dtype=torch.float64)
    right = torch.nn.functional.scaled_dot_product_attention(rotary(q, row), rotary(k, row), v, is_causal=True)
    cache, out = ({}, [])
    for cut in (slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 7)):
        out.append(attend_next(q[:, :, cut], k[:, :, cut], v[:, :, cut], cache, theta))
        n = out[-1].shape[2]
        assert cache['k'].shape[2] == cut.stop, f"after {cut.stop} tokens the cache holds {cache['k'].shape[2]} keys"
        gap = (cache['k'] - rotary(k, row)[:, :, :cut.stop])[:, :, :cut.start].abs().max().item() if cut.start else 0
        assert gap < 1e-09, 'keys that were in the cache have changed: they are turned already, once is enough'
        new = rotary(k, row)[:, :, cut]
        assert not torch.allclose(cache['k'][:, :, cut], rotary(k[:, :, cut], torch.arange(n)[None])) or cut.start == 0, 'new keys are turned as if the text began with them: where do they stand?'
        assert torch.allclose(cache['k'][:, :, cut], new, atol=1e-09), f'the keys of tokens {cut.start} ... {cut.stop - 1} are not turned by their positions'
        where = right[:, :, cut]
        assert torch.allclose(out[-1], where, atol=1e-09), f'tokens {cut.start} ... {cut.stop - 1}: keys are right, the result is not. Are the queries turned by their positions, too?'

@test_case(points=None, hidden=True)
def test_any_cut(attend_next):
    import torch
    from minillm.nn import rotary_frequencies
    torch.manual_seed(2)
    theta = rotary_frequencies(6)
    q, k, v = torch.randn(3, 2, 3, 9, 6, dtype=torch.float64)
    whole = attend_next(q, k, v, {}, theta)
    for sizes in ((1,) * 9, (4, 5), (2, 1, 6), (8, 1)):
        cache, parts, start = ({}, [], 0)
        for n in sizes:
            cut = slice(start, start + n)
            parts.append(attend_next(q[:, :, cut], k[:, :, cut], v[:, :, cut], cache, theta))
            start += n
        gap = (torch.cat(parts, dim=2) - whole).abs().max().item()
        assert gap < 1e-09, f'cut into pieces of {sizes} the result differs by {gap:.2g}'

