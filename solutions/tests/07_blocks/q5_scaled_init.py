from otter.test_files import test_case

OK_FORMAT = False

name = "q5_scaled_init"
points = 3

@test_case(points=None, hidden=False)
def test_what_changed(scale_residual):
    import copy
    import torch
    from minillm.nn import FeedForward, LayerNorm, MultiHeadAttention, PreNormBlock
    torch.manual_seed(0)
    blocks = [PreNormBlock(MultiHeadAttention(6, 2), FeedForward(6, 10), LayerNorm(6), LayerNorm(6)) for _ in range(3)]
    before = copy.deepcopy(blocks)
    scale_residual(blocks)
    for number, (new, old) in enumerate(zip(blocks, before)):
        ratios = {name: (p.detach().norm() / q.norm()).item() if q.norm() > 0 else 1.0 for (name, p), q in zip(new.named_parameters(), old.parameters())}
        attention, down = (ratios.pop('attention.output.weight'), ratios.pop('ffn.down.weight'))
        assert (attention, down) != (1, 1), 'nothing that writes to the stream changed; did you change a copy?'
        assert abs(attention - 1) > 1e-06, 'attention writes to the stream too, with its output projection'
        assert abs(down - 1) > 1e-06, 'the feed-forward layer writes to the stream too, with its second matrix, `down`'
        changed = [name for name, ratio in ratios.items() if abs(ratio - 1) > 1e-06]
        assert not changed, f'only matrices that write to the stream are scaled, and {changed[0]} changed as well'
        for factor in (attention, down):
            assert abs(factor - 3 ** (-0.5)) > 1e-05, 'N counts residual additions, and each of the 3 blocks has two'
            assert abs(factor - 1 / 6) > 1e-05, 'divided by N: what adds up are variances, so it is the root of N'
            assert factor < 1, 'the weights grew: the factor is one *over* the root of N'
            assert abs(factor - 6 ** (-0.5)) < 1e-05, f'block {number}: expected the factor 1/sqrt(6), found {factor:.4f}'
        assert all((p.requires_grad for p in new.parameters())), 'the parameters must still be trainable afterwards'

@test_case(points=None, hidden=True)
def test_the_stream_keeps_its_size(scale_residual):
    import torch
    from minillm.nn import FeedForward, LayerNorm, MultiHeadAttention, PreNormBlock
    torch.manual_seed(1)
    x, grown = (torch.randn(4, 9, 16), [])
    for n in (2, 32):
        blocks = [PreNormBlock(MultiHeadAttention(16, 2), FeedForward(16, 64), LayerNorm(16), LayerNorm(16)) for _ in range(n)]
        with torch.no_grad():
            for block in blocks:
                for p in block.parameters():
                    if p.dim() == 2:
                        p.normal_(std=p.shape[1] ** (-0.5))
        scale_residual(blocks)
        y = x
        with torch.no_grad():
            for block in blocks:
                y = block(y, causal=True)
        grown.append((y.var() / x.var()).item())
    assert grown[1] < 2 * grown[0], f'the variance of the stream grew {grown[0]:.1f} times in 2 blocks and {grown[1]:.1f} times in 32: scaled, it should not depend on depth'

