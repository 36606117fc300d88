from otter.test_files import test_case

OK_FORMAT = False

name = "q4_block_bug"
points = 3

@test_case(points=None, hidden=False)
def test_nothing_is_lost(block):
    import torch
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 4, 6, dtype=torch.float64)
    scale, read = (torch.arange(1, 7) / 2, {})

    def norm_1(y):
        return torch.nn.functional.layer_norm(y, (6,)) * scale

    def norm_2(y):
        return torch.nn.functional.layer_norm(y, (6,)) * scale.flip(0)

    def attention(y):
        read['attention'] = y.clone()
        return torch.zeros_like(y)
    out = block(x.clone(), attention, torch.zeros_like, norm_1, norm_2)
    assert out is not None, 'block returned nothing: is the `return` missing?'
    assert tuple(out.shape) == (2, 4, 6), f'the result must have the shape of x, not {tuple(out.shape)}'

    def is_(y):
        return (out - y).abs().max() < 1e-09
    twice = 'attention' in read and (read['attention'] - norm_1(norm_1(x))).abs().max() < 1e-09
    assert not (is_(norm_1(x)) and twice), 'attention now reads x normalized twice: the line that overwrites x with norm_1(x) is still there'
    assert not is_(norm_1(x)), 'attention and ffn add nothing here, and out comes norm_1(x): only what attention reads may be normalized, not what its result is added to'
    assert not is_(norm_2(x)), 'the first half keeps x now, but the second half gives norm_2(x) where ffn adds nothing: only what ffn reads may be normalized, not what its result is added to'
    assert not is_(norm_2(norm_1(x))), 'attention and ffn add nothing here, and the stream went through both norms: only what attention and ffn read may be normalized'
    assert not (out == 0).all(), 'attention and ffn add nothing here, and x is gone: something was not added to x'
    assert (out - x).abs().max() < 1e-12, 'attention and ffn add nothing here, so x must come out as it went in'

@test_case(points=None, hidden=False)
def test_against_torch(block):
    import torch
    from torch import nn
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(6, 2, 12, 0.0, batch_first=True, norm_first=True).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(std=0.4)
        x = 2 * torch.randn(3, 5, 6, dtype=torch.float64) + 1
        att = lambda y: layer.self_attn(y, y, y, need_weights=False)[0]
        ffn = lambda y: layer.linear2(layer.linear1(y).relu())
        n1, n2 = (layer.norm1, layer.norm2)
        given = x.clone()
        out, right = (block(given, att, ffn, n1, n2), layer(x))
        assert out is not None, 'block returned nothing: is the `return` missing?'
        middle = x + att(n1(x))
        wrong = {'the first norm is used twice: each part has its own': middle + ffn(n1(middle)), 'the feed-forward layer must read the stream through norm_2': middle + ffn(middle), 'attention must read the stream through norm_1': x + att(x) + ffn(n2(x + att(x))), 'the feed-forward layer reads what attention has added, too': middle + ffn(n2(x)), 'that is post-norm: here the norm stands in front of each part': n2(n1(x + att(x)) + ffn(n1(x + att(x)))), 'the result of attention is lost': x + ffn(n2(x)), 'what the feed-forward layer says must be added to the stream': ffn(n2(middle))}
        for message, y in wrong.items():
            assert not (out - y).abs().max() < 1e-09, message
        gap = (out - right).abs().max().item()
        assert gap < 1e-09, f"differs from PyTorch's pre-norm layer by {gap:.2g}"
        assert torch.equal(given, x), 'your function changed its input: write x = x + ..., not x += ...'

