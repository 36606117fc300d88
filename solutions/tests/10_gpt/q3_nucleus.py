from otter.test_files import test_case

OK_FORMAT = False

name = "q3_nucleus"
points = 4

@test_case(points=None, hidden=False)
def test_example(nucleus):
    import torch
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log() + 3.0
    before = logits.clone()
    out = nucleus(logits, 0.6)
    assert isinstance(out, torch.Tensor) and out.shape == logits.shape, 'return logits of the same shape as the argument'
    assert torch.equal(logits, before), 'the argument was changed: use masked_fill, not masked_fill_ or an assignment into it'
    kept = (out > -1e+30).nonzero()[:, 1].tolist()
    assert len(kept) != 2 or kept == [1, 3], f'the right number is kept, but in the wrong places ({kept}, not [1, 3]): undo the sort'
    assert bool(nucleus(logits, 0.3)[0, 1] > -1e+30), 'the likeliest token is gone: sort from likely to unlikely, and always keep the first'
    assert len(kept) > 0, 'nothing is kept: the likeliest token always is'
    assert len(kept) < 4, 'everything is kept: a removed token needs the logit -inf; 0 or a small number still gets probability'
    assert kept != [1], '0.5 alone does not reach 0.6: the token that crosses p belongs to the set'
    assert kept != [0, 1, 3], '0.5 + 0.3 is enough: a token is needed only if those *before* it weigh less than p'
    assert 2 not in kept, 'the unlikeliest token is kept: sort with descending=True'
    assert kept == [1, 3], f'p = 0.6 keeps tokens 1 and 3 here, you keep {kept}'
    assert torch.equal(out[0, kept], logits[0, kept]), 'what is kept keeps its logit: return logits, not probabilities'
    assert bool((out[0, [0, 2]] == -torch.inf).all()), 'a removed token gets the logit -inf, exactly'

@test_case(points=None, hidden=False)
def test_rows(nucleus):
    import torch
    sharp, flat = ([0.9, 0.05, 0.03, 0.02], [0.25, 0.24, 0.26, 0.25])
    out = nucleus(torch.tensor([sharp, flat]).log(), 0.7)
    counts = (out > -1e+30).sum(dim=-1).tolist()
    assert counts == [1, 3], f'with p = 0.7 a sharp row keeps 1 token and a flat one 3, you keep {counts}: each row is a distribution of its own, sort and sum along the last axis'

@test_case(points=None, hidden=False)
def test_edges(nucleus):
    import torch
    out = nucleus(torch.zeros(1, 4), 0.6)
    assert isinstance(out, torch.Tensor) and out.shape == (1, 4), 'return logits of the same shape as the argument'
    count = int((out > -1e+30).sum())
    assert count != 4, 'of four equally likely tokens three reach 0.6, you keep all: a threshold on the value cannot tell ties apart, use the order'
    assert count == 3, f'of four equally likely tokens three reach 0.6, you keep {count}'
    count = int((nucleus(torch.zeros(1, 4), 0.5) > -1e+30).sum())
    assert count != 3, 'two times 0.25 are exactly p = 0.5, and that is enough (at least p): you keep one more, is it >= or >?'
    assert count == 2, f'two times 0.25 are exactly p = 0.5, and that is enough: you keep {count}'
    logits = torch.tensor([[0.5, 2.0, -1.0, 1.0, 0.0], [0.0, 0.1, 0.2, 0.3, 0.4]])
    try:
        out = nucleus(logits, 1.0)
    except (IndexError, RuntimeError, ValueError) as error:
        raise AssertionError(f'p = 1.0 keeps every token, but your function raises {type(error).__name__}: is there a place after the last?') from error
    assert torch.equal(out, logits), 'p = 1.0 keeps every token and its logit: together they weigh 1, and none can be spared'

@test_case(points=None, hidden=False)
def test_every_set(nucleus):
    import torch
    torch.manual_seed(0)
    logits = torch.randn(6, 50, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 9.0], dtype=torch.float64)[:, None]
    for p in (0.05, 0.37, 0.8, 0.99):
        out = nucleus(logits, p)
        assert out.shape == logits.shape, 'return logits of the same shape as the argument'
        for row, new in zip(logits, out):
            probabilities = row.softmax(-1).tolist()
            mass, right = (0.0, set())
            for token in sorted(range(50), key=lambda i: -probabilities[i]):
                if mass >= p:
                    break
                right.add(token)
                mass += probabilities[token]
            kept = set((new > -1e+30).nonzero()[:, 0].tolist())
            assert not kept < right, f'p = {p}: the kept tokens weigh less than p together; the one that crosses p belongs to the set'
            assert not kept > right, f'p = {p}: {len(kept)} tokens are kept where {len(right)} reach p: the set must be the smallest'
            assert kept == right, f'p = {p}: not the likeliest tokens; after sorting, put the answer back where the tokens are'

@test_case(points=None, hidden=True)
def test_oracle(nucleus):
    import torch
    from minillm.generation.sampling import top_p
    torch.manual_seed(1)
    logits = 2 * torch.randn(8, 301, dtype=torch.float64)
    for p in (0.001, 0.2, 0.5, 0.9, 0.995):
        out, right = (nucleus(logits, p), top_p(logits, p))
        assert out.shape == right.shape, 'return logits of the same shape as the argument'
        assert torch.equal(out, right), f"p = {p}: {int((out.isfinite() != right.isfinite()).sum())} tokens differ from the library's top_p"

