from otter.test_files import test_case

OK_FORMAT = False

name = "q3_balance"
points = 3

@test_case(points=None, hidden=False)
def test_against_counting(balance_loss):
    import math
    import torch
    torch.manual_seed(0)
    for n, e, k, shy in ((13, 5, 2, 0), (20, 4, 1, 0), (9, 6, 3, 0), (14, 5, 2, 9)):
        logits = torch.randn(n, e, dtype=torch.float64) + torch.arange(e) / 2
        logits[:, -1] -= shy
        keep = torch.arange(n) % 3 > 0
        try:
            out = balance_loss(logits.clone(), k, keep.clone())
        except RuntimeError as error:
            if 'size of tensor' not in str(error):
                raise
            raise AssertionError('an expert that nobody chose has a count of 0: all E counts must be there (minlength=E)') from None
        assert isinstance(out, torch.Tensor) and out.ndim == 0, 'return one number, as a tensor without axes'
        f, p, rows, f_all, p_all = ([0.0] * e, [0.0] * e, 0, [0.0] * e, [0.0] * e)
        for row, (x, used) in enumerate(zip(logits.tolist(), keep.tolist())):
            best = sorted(range(e), key=lambda i: -x[i])[:k]
            total = sum((math.exp(v) for v in x))
            rows += used
            for i in range(e):
                f[i] += used * (i in best)
                p[i] += used * math.exp(x[i]) / total
                f_all[i] += i in best
                p_all[i] += math.exp(x[i]) / total
        share, mean = ([v / (rows * k) for v in f], [v / rows for v in p])

        def other(used, z, choices=k):
            hard = torch.zeros_like(z).scatter(-1, z.topk(choices).indices, 1.0)[used].mean(0) / choices
            return e * (hard * z[used].softmax(-1).mean(0)).sum().item()
        dot = lambda a, b: sum((x * y for x, y in zip(a, b)))
        right = e * dot(share, mean)
        kept = logits[keep]
        few = torch.full_like(kept, -torch.inf).scatter(-1, *reversed(kept.topk(k)))
        wrong = {'padding counts: leave out the tokens where keep is false, in f and in P': e * dot([v / (n * k) for v in f_all], [v / n for v in p_all]), 'padding counts in f: leave out the choices of tokens where keep is false': e * dot([v / (n * k) for v in f_all], mean), 'padding counts in P: leave out the probabilities of tokens where keep is false': e * dot(share, [v / n for v in p_all]), 'divide the sums over kept tokens by how many are kept, not by n': e * dot(share, [v / n for v in p]), 'f is the share of *choices*: divide by k times the number of tokens': k * right, 'multiply by E: at perfect balance the loss is 1': right / e, 'P is the mean probability; you have used the shares twice': e * dot(share, share), 'f is the share of choices; you have used the mean probability twice': e * dot(mean, mean), 'multiply by the number of experts E, not by k': k * right / e, 'multiply by E, all the experts: those that nobody chose count, too': sum((v > 0 for v in share)) * right / e, 'the probabilities are a softmax, not sigmoids': e * dot(share, kept.sigmoid().mean(0).tolist()), 'the probabilities are a softmax of all E logits, not of the chosen ones': e * dot(share, few.softmax(-1).mean(0).tolist()), 'keep is true where a token counts: you have kept the others': other(~keep, logits), 'a padded token is left out, not set to zeros: zeros still vote': other(keep | True, logits * keep[:, None])}
        if k > 1:
            wrong['each token makes k choices; you have counted its first alone'] = other(keep, logits, 1)
        for message, value in wrong.items():
            assert abs(value - right) < 1e-05 or abs(out.item() - value) > 1e-05, message
        gap = abs(out.item() - right)
        assert gap < 1e-05, f'for n = {n}, E = {e}, k = {k} it should be {right:.4f}, counted by hand, and is {out.item():.4f}'

@test_case(points=None, hidden=False)
def test_gradient(balance_loss):
    import torch
    torch.manual_seed(1)
    logits = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    keep = torch.tensor([True] * 6 + [False] * 2)
    out = balance_loss(logits, 2, keep)
    assert out.requires_grad, 'the loss has no gradient: P must be computed from the logits, without detach or item()'
    gradient, = torch.autograd.grad(out, logits, allow_unused=True)
    assert gradient is not None and gradient.abs().max() > 1e-06, 'no gradient reaches the logits'
    assert gradient[6:].abs().max() < 1e-12, 'a padded token has a gradient: it must not count'
    f = torch.zeros(8, 4, dtype=torch.float64).scatter(-1, logits.topk(2).indices, 1.0)[:6].sum(0) / 12
    right, = torch.autograd.grad(4 * (f * logits.softmax(-1)[:6].mean(0)).sum(), logits)
    gap = (gradient - right).abs().max().item()
    assert gap < 1e-06, f'the gradient differs by {gap:.2g}: the shares f are counts, a constant; only P has one'

