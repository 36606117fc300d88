from otter.test_files import test_case

OK_FORMAT = False

name = "q5_fused"
points = 3

@test_case(points=None, hidden=False)
def test_falcon_40b(split_fused):
    import torch
    torch.manual_seed(0)
    h, g, p, d = (6, 2, 3, 5)
    fused = torch.randn((h + 2 * g) * p, d)
    given = fused.clone()
    out = split_fused(given, h, g)
    assert out is not None, 'split_fused returned nothing: is the `return` missing?'
    assert torch.equal(given, fused), 'your function changed its input: leave it as it is'
    assert isinstance(out, tuple | list) and len(out) == 3, 'return three matrices: queries, keys, values'
    shapes = [tuple(y.shape) for y in out]
    assert shapes == [(18, 5), (6, 5), (6, 5)], f'six query heads and two key heads of three rows: the shapes are {shapes}'
    rows, want = (0, {'queries': [], 'keys': [], 'values': []})
    for group in range(g):
        for name in ['queries'] * (h // g) + ['keys', 'values']:
            want[name].append(fused[rows:rows + p])
            rows += p
    side = fused.split([h * p, g * p, g * p])
    assert not all(map(torch.equal, out, side)), 'that takes queries, keys and values to lie side by side; they come group by group'
    first = fused.view(g, -1, p, d)
    early = (first[:, 2:].reshape(-1, d), first[:, 0].reshape(-1, d), first[:, 1].reshape(-1, d))
    assert not all(map(torch.equal, out, early)), 'in each group the query heads come first, then key, then value'
    assert not (torch.equal(out[1], torch.cat(want['values'])) and torch.equal(out[2], torch.cat(want['keys']))), 'keys and values are exchanged: the key comes before the value'
    for y, (name, parts) in zip(out, want.items()):
        right = torch.cat(parts)
        assert not (not torch.equal(y, right) and torch.equal(y.sort(0).values, right.sort(0).values)), f'the right rows of the {name}, in another order: the heads stay in their order'
        assert torch.equal(y, right), f'the {name} are not the rows that the definition above gives'

@test_case(points=None, hidden=False)
def test_the_other_layouts(split_fused):
    import torch
    torch.manual_seed(1)
    fused = torch.randn(16, 3)
    side = fused.split([12, 2, 2])
    try:
        out = split_fused(fused, 6, 1)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise AssertionError('fails for six query heads and one key head: take the groups from g') from error
    assert all(map(torch.equal, out, side)), 'with one key head (Falcon-7B) queries, key and value lie side by side'
    fused = torch.randn(24, 3)
    heads = fused.view(4, 3, 2, 3)
    try:
        out = split_fused(fused, 4, 4)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise AssertionError('fails for four query heads and four key heads: take the groups from g') from error
    for y, name, right in zip(out, ('queries', 'keys', 'values'), heads.unbind(1)):
        assert torch.equal(y, right.reshape(8, 3)), f'with a key head for every query head (BLOOM) the {name} are wrong'

@test_case(points=None, hidden=True)
def test_against_the_library(split_fused):
    import torch
    from minillm.models.bloom import GroupedHeads
    from minillm.models.falcon import FalconConfig
    torch.manual_seed(2)
    for h, g, p, d in ((8, 4, 5, 2), (12, 3, 1, 7), (2, 1, 64, 3)):
        config = FalconConfig(vocab_size=1, max_seq_len=1, d_model=h * p, n_layers=1, n_heads=h, n_kv_heads=g)
        fused = torch.randn((h + 2 * g) * p, d)
        right = GroupedHeads().split(fused, config)
        out = split_fused(fused, h, g)
        assert all((a.shape == b.shape and torch.equal(a, b) for a, b in zip(out, right))), f'wrong for h = {h}, g = {g}, p = {p}, d = {d}: take the sizes from the arguments'

