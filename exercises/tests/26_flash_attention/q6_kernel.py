from otter.test_files import test_case

OK_FORMAT = False

name = "q6_kernel"
points = 4

@test_case(points=None, hidden=False)
def test_one_tile(causal_attention):
    import torch
    from minillm.kernels import dispatch
    assert dispatch.triton is not None, 'Triton is not installed here (it has wheels for Linux only): do this question in Colab'
    assert dispatch.INTERPRETED, 'Triton was imported before TRITON_INTERPRET was set: restart, then run the cells from the top'
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 11, 6)
    out = causal_attention(q, k, v)
    assert tuple(out.shape) == (11, 6), f'the output has the shape of q, (11, 6), not {tuple(out.shape)}'
    S = (q @ k.T).double() / 6 ** 0.5

    def with_mask(seen):
        return torch.nan_to_num(S.masked_fill(~seen, -torch.inf).softmax(1)) @ v.double()
    seen = torch.ones(11, 11).tril().bool()
    gap = (out - with_mask(seen)).abs().max().item()
    ahead = (out - with_mask(torch.ones(11, 11).tril(1).bool())).abs().max()
    assert not ahead < 0.005, 'each query sees the key after its own: the mask is off by one (query i sees keys up to and with i)'
    short = (out - with_mask(torch.ones(11, 11).tril(-1).bool()))[1:].abs().max()
    assert not short < 0.005, 'no query sees its own key: the mask is off by one the other way'
    free = (out - S.softmax(1) @ v.double()).abs().max()
    assert not free < 0.005, 'the mask is gone: every query sees all keys'
    base = (S * 0.6931471805599453).masked_fill(~seen, -torch.inf).softmax(1) @ v.double()
    assert not (out - base).abs().max() < 0.005, '2 to the score instead of e to the score: the scale carries LOG2E'
    assert not 1e-05 < gap < 0.005, f'nearly right, off by {gap:.1g}: a sum is kept in half precision'
    assert gap < 1e-05, f'wrong by {gap:.2g} for 11 queries, where one tile holds all'

@test_case(points=None, hidden=False)
def test_many_tiles(causal_attention):
    import torch
    from minillm.kernels.tracing import trace
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 45, 6)
    k[20:] *= 3
    with trace() as traffic:
        out = causal_attention(q, k, v)
    assert traffic.launches, 'no kernel was launched: the work is for causal_kernel, not for PyTorch or NumPy'
    assert traffic.programs == 3, f'45 queries in tiles of 16 are 3 programs, not {traffic.programs}'
    right = torch.nn.functional.scaled_dot_product_attention(*(x.double()[None, None] for x in (q, k, v)), is_causal=True)[0, 0]
    gap = (out - right).abs().amax(1)
    assert gap[:16].max() < 1e-05, f'the first 16 queries are wrong by {gap[:16].max():.2g}; the first check tells more'
    own = (torch.arange(45) // 16 * 16)[:, None] > torch.arange(45)[None]
    S = (q @ k.T).double() / 6 ** 0.5
    skipped = torch.nan_to_num(S.masked_fill(~own, -torch.inf).softmax(1)) @ v.double()
    missing = (out - skipped)[16:].abs().max()
    assert not missing < 0.005, 'each program but the first stops before the keys of its own tile: those on the diagonal are lost'
    assert not 1e-05 < gap.max() < 0.005, f'nearly right, off by {gap.max():.1g}: a sum is kept in half precision'
    assert gap.max() < 1e-05, f'later queries are wrong by {gap.max():.2g}: is everything that was added up rescaled when a larger score comes, and the own tile of keys read?'
    keys = 16 + 32 + 45
    bytes_loaded = 4 * 6 * (45 + 2 * keys)
    assert traffic.loaded >= bytes_loaded, 'the kernel loads too little: queries, keys and values come from memory, by `take`'
    assert traffic.loaded == bytes_loaded, f'{traffic.loaded:,} bytes are loaded where {bytes_loaded:,} do: no program needs the tiles of keys behind its own queries'

@test_case(points=None, hidden=False)
def test_other_tiles_and_large_scores(causal_attention):
    import torch
    torch.manual_seed(2)
    for t, p, M, N in ((33, 8, 32, 16), (40, 16, 16, 32), (1, 5, 16, 16), (70, 5, 32, 16)):
        q, k, v = torch.randn(3, t, p)
        right = torch.nn.functional.scaled_dot_product_attention(*(x.double()[None, None] for x in (q, k, v)), is_causal=True)[0, 0]
        gap = (causal_attention(q, k, v, M, N) - right).abs().max().item()
        assert gap < 1e-05, f'wrong by {gap:.2g} for t = {t} in tiles of {M} queries and {N} keys: tiles need not be square'
    q, k, v = torch.randn(3, 35, 8)
    out = causal_attention(15 * q, 15 * k, v)
    assert out.isfinite().all(), 'large scores give NaN or infinity: subtract the running maximum'
    right = torch.nn.functional.scaled_dot_product_attention(*(x.double()[None, None] for x in (15 * q, 15 * k, v)), is_causal=True)
    gap = (out - right[0, 0]).abs().max().item()
    assert gap < 0.002, f'wrong by {gap:.2g} on large scores'

