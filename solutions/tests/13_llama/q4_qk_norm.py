from otter.test_files import test_case

OK_FORMAT = False

name = "q4_qk_norm"
points = 3

@test_case(points=None, hidden=False)
def test_norm_and_order(queries):
    import torch
    from minillm.nn import Rotary, rotary_frequencies
    torch.manual_seed(0)
    x, weight = (torch.randn(5, 7, dtype=torch.float64), torch.randn(18, 7, dtype=torch.float64))
    scale = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.1, 1.5], dtype=torch.float64)
    rotary, places = (Rotary(rotary_frequencies(6, base=20)), torch.arange(5)[None] + 1)

    def turn(q):
        assert tuple(q.shape) == (3, 5, 6), f'`turn` wants (n_heads, t, p) = (3, 5, 6), not {tuple(q.shape)}: split and transpose first'
        return rotary(q[None], places)[0]
    given = [y.clone() for y in (x, weight, scale)]
    out = queries(*given, turn, 3, 0.01)
    assert out is not None, 'queries returned nothing: is the `return` missing?'
    assert all(map(torch.equal, given, (x, weight, scale))), 'your function changed its input: leave it as it is'
    assert tuple(out.shape) == (3, 5, 6), f'the result must be (heads, t, p) = (3, 5, 6), not {tuple(out.shape)}'

    def norm(q, eps=0.01):
        return q / (q.square().mean(-1, keepdim=True) + eps).sqrt()
    flat = x @ weight.T
    q, together = (y.view(5, 3, 6).transpose(0, 1) for y in (flat, norm(flat)))
    wrong = {'both bugs are still there: where is the mean taken, and what comes before the rotation?': turn(together) * scale, 'the rotation comes last now, but the mean of the squares still runs over all heads': turn(together * scale), 'each head has its own norm now, but the scale still comes after the rotation': turn(norm(q)) * scale, 'norm and scale come after the rotation: the rotation is last': norm(turn(q)) * scale, 'the norm is gone: each head is divided by its root mean square': turn(q * scale), 'the scale is gone: it multiplies behind the norm': turn(norm(q)), 'the rotation is gone: `turn` comes last': norm(q) * scale, 'the epsilon is gone: it is added to the mean square': turn(norm(q, 0.0) * scale), '`view(n_heads, t, p)` alone mixes tokens and heads: split the last axis, then transpose': turn(norm(flat.view(3, 5, 6)) * scale), 'the epsilon stands outside the root: it is added to the mean square, under it': turn(q / (q.square().mean(-1, keepdim=True).sqrt() + 0.01) * scale), 'a sum of squares, not their mean': turn(q / (q.square().sum(-1, keepdim=True) + 0.01).sqrt() * scale), "the scale multiplies, 1 + scale is Gemma's": turn(norm(q) * (1 + scale)), 'the mean was subtracted: RMSNorm only divides': turn(torch.nn.functional.layer_norm(q, (6,), eps=0.01) * scale)}
    for message, y in wrong.items():
        assert not (out - y).abs().max() < 1e-09, message
    right = turn(torch.nn.functional.rms_norm(q, (6,), scale, 0.01))
    gap = (out - right).abs().max().item()
    assert gap < 1e-09, f'differs from split, norm, scale, turn by {gap:.2g}'

@test_case(points=None, hidden=True)
def test_equals_the_library(queries):
    import torch
    from minillm.models.llama_cousins import qwen3
    torch.manual_seed(1)
    model = qwen3(vocab_size=9, max_seq_len=16, d_model=10, n_layers=1, n_heads=4, n_kv_heads=2, d_head=8, d_ff=12)
    attention = model.blocks[0].attention
    with torch.no_grad():
        attention.query_norm.weight.copy_(torch.rand(8) * 3)
        x = torch.randn(7, 10)
        kept = {}
        attention.attention = lambda q, k, v, *rest, **options: kept.setdefault('q', q) * 0
        attention(x[None])
        turn = lambda q: attention.rotary(q[None], torch.arange(7)[None])[0]
        try:
            out = queries(x, attention.query.weight, attention.query_norm.weight, turn, 4, 1e-06)
        except NotImplementedError:
            raise
        except RuntimeError as error:
            raise AssertionError('fails for four heads of eight: take all sizes from the arguments') from error
        assert tuple(out.shape) == (4, 7, 8), f'for four heads of eight the result is {tuple(out.shape)}: use n_heads'
        gap = (out - kept['q'][0]).abs().max().item()
    assert gap < 1e-05, f"differs from the queries of minillm's Qwen3 by {gap:.2g}: take all sizes from the arguments"

