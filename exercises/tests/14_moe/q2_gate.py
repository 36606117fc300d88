from otter.test_files import test_case

OK_FORMAT = False

name = "q2_gate"
points = 3

@test_case(points=None, hidden=False)
def test_against_brute_force(top_k_weights):
    import math
    import torch
    torch.manual_seed(0)
    logits = 2 * torch.randn(11, 7, dtype=torch.float64) - 1
    for k in (2, 3, 7):
        given = logits.clone()
        try:
            out = top_k_weights(given, k)
        except RuntimeError as error:
            assert 'dtype' not in str(error), 'the logits are float64 here: torch.zeros_like(logits) makes zeros of their type'
            raise
        assert out is not None, 'top_k_weights returned nothing: is the `return` missing?'
        assert torch.equal(given, logits), 'your function changed its input: leave logits as they are'
        assert tuple(out.shape) == (11, 7), f'one weight for each token and expert, (11, 7), not {tuple(out.shape)}'
        right = torch.zeros(11, 7, dtype=torch.float64)
        for row, x in enumerate(logits.tolist()):
            best = sorted(range(7), key=lambda i: -x[i])[:k]
            total = sum((math.exp(x[i]) for i in best))
            for i in best:
                right[row, i] = math.exp(x[i]) / total
        p = logits.softmax(-1)

        def is_(y):
            return (out - y).abs().max() < 1e-09
        kept = right > 0
        if k < 7:
            assert not is_(p), f'all experts have a weight: only the {k} largest of each row may'
            assert not is_(p * kept), f'the {k} weights of a row must add up to 1: a softmax over the chosen alone'
            assert not is_((logits * kept).softmax(-1)), "a logit of 0 is not 'not chosen': it gets e^0 in the softmax"
        assert not is_(kept.double() / k), 'the weights of the chosen differ: a softmax of their logits'
        smallest = (-logits).topk(k).indices
        low = torch.zeros_like(p).scatter(-1, smallest, logits.gather(-1, smallest).softmax(-1))
        assert k == 7 or not is_(low), 'those are the smallest logits, not the largest'
        places = logits.topk(k).indices
        across = torch.zeros_like(p).scatter(-1, places, logits.gather(-1, places).softmax(0))
        assert not is_(across), 'the softmax runs along the experts of one token (the last axis), not over the tokens'
        values, places = logits.topk(k, dim=0)
        across = torch.zeros_like(p).scatter(0, places, values.softmax(0))
        assert not is_(across), 'the experts chose tokens: each token chooses among its experts, along the last axis'
        zeros = int((out == 0).sum())
        assert zeros == 11 * (7 - k), f'{zeros} weights are 0, and {11 * (7 - k)} should be: exactly {k} experts a token'
        gap = (out - right).abs().max().item()
        assert gap < 1e-09, f'differs from a softmax over the {k} largest, counted by hand, by {gap:.2g}'

@test_case(points=None, hidden=False)
def test_gradient(top_k_weights):
    import torch
    torch.manual_seed(1)
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(5, 6, dtype=torch.float64)
    out = top_k_weights(logits, 2)
    assert out.requires_grad, 'no gradient reaches the logits: no detach, no item(), no torch.tensor(...)'
    gradient, = torch.autograd.grad((out * probe).sum(), logits, allow_unused=True)
    assert gradient is not None, 'no gradient reaches the logits'
    kept = out.detach() > 0
    right, = torch.autograd.grad((logits.masked_fill(~kept, -torch.inf).softmax(-1) * probe).sum(), logits)
    assert gradient[kept].abs().max() > 1e-06, "the chosen experts' logits must get a gradient"
    assert gradient[~kept].abs().max() < 1e-12, 'experts that were not chosen must get no gradient: they are not in the softmax'
    gap = (gradient - right).abs().max().item()
    assert gap < 1e-09, f'the gradient differs from that of a masked softmax by {gap:.2g}'

