from otter.test_files import test_case

OK_FORMAT = False

name = "q4_crf"
points = 4

@test_case(points=None, hidden=False)
def test_log_z(log_z):
    import itertools
    import torch
    zero = torch.zeros(3, 4, dtype=torch.float64)
    value = log_z(zero, torch.zeros(4, 4, dtype=torch.float64))
    assert isinstance(value, torch.Tensor) and value.numel() == 1, f'return a tensor with one number, not {type(value).__name__}: training needs its gradient'
    value = float(value)
    assert abs(value - 64) > 1e-06, 'return the logarithm of the sum'
    assert abs(value) > 1e-06, '4 ** 3 sequences of score 0 sum to 64: the answer is ln 64, not 0. Is it a maximum, or the softmax of something?'
    assert abs(value - torch.tensor(64.0).double().log().item()) < 1e-09, f'64 sequences of score 0 give ln 64 = 4.159, not {value:.3f}'
    torch.manual_seed(0)
    for t, k in [(1, 3), (2, 3), (5, 3), (4, 4), (6, 2), (3, 5)]:
        z, a = (2 * torch.randn(t, k).double(), 2 * torch.randn(k, k).double())

        def total(a, z=z, t=t, k=k):
            scores = [sum((z[i, y] for i, y in enumerate(ys))) + sum((a[i, j] for i, j in zip(ys, ys[1:]))) for ys in itertools.product(range(k), repeat=t)]
            return torch.stack(scores)
        given = [part.clone().requires_grad_() * 1.0 for part in (z, a)]
        got, right = (log_z(*given), total(a).logsumexp(0))
        assert torch.equal(given[0], z) and torch.equal(given[1], a), 'leave z and a as they are'
        assert got.requires_grad, 'no gradient can flow back to z: do not detach, and do not leave torch'
        got = got.detach()
        if t > 1:
            assert abs(got - total(a.T).logsumexp(0)) > 1e-09, 'a[i, j] goes *from* i *to* j: the table is transposed'
            assert abs(got - total(0 * a).logsumexp(0)) > 1e-09, 'the transitions play no part'
            assert abs(got - total(a).max()) > 1e-09, 'that is the best score: sum over the sequences, do not take the maximum'
        assert abs(got - right) < 1e-09, f'{t} tokens, {k} tags: {float(got):.4f}, and brute force says {float(right):.4f}'

@test_case(points=None, hidden=False)
def test_log_z_large(log_z):
    import torch
    z = torch.full((200, 3), 1000.0, dtype=torch.float64)
    value = float(log_z(z, torch.zeros(3, 3, dtype=torch.float64)))
    assert value == value and abs(value) != float('inf'), 'scores of 1000 overflow: use torch.logsumexp, not exp and log'
    assert abs(value - 200 * (1000 + torch.tensor(3.0).double().log().item())) < 1e-06, f'200 tokens with scores of 1000: {value} is wrong'

@test_case(points=None, hidden=False)
def test_best_tags(best_tags):
    import itertools
    import torch
    torch.manual_seed(1)
    for t, k, scale in [(1, 3, 1), (2, 3, 1), (6, 3, 1), (5, 4, 1), (6, 3, 1), (6, 3, 1), (7, 2, 1), (4, 5, 1), (6, 3, 1000)]:
        z, a = (scale * torch.randn(t, k).double(), 2 * scale * torch.randn(k, k).double())
        before = (z.clone(), a.clone())
        got = best_tags(z, a)
        assert isinstance(got, list) and all((type(y) is int for y in got)), 'return a list of whole numbers: int(...) of each tag'
        assert torch.equal(z, before[0]) and torch.equal(a, before[1]), 'leave z and a as they are'
        assert len(got) == t, f'{t} tokens need {t} tags, not {len(got)}'

        def score(ys, a=a, z=z):
            return float(sum((z[i, y] for i, y in enumerate(ys))) + sum((a[i, j] for i, j in zip(ys, ys[1:]))))
        best = list(max(itertools.product(range(k), repeat=t), key=score))
        if got != best:
            assert got != best[::-1], 'the path is backwards: it is found from the last token to the first'
            assert got != z.argmax(-1).tolist(), 'that is the best tag of each token alone; the transitions count too'
            turned = max(itertools.product(range(k), repeat=t), key=lambda ys: score(ys, a.T))
            assert got != list(turned), 'a[i, j] goes *from* i *to* j: the table is transposed'
            assert scale == 1, 'with scores of 1000 another path is found: the maximum needs no exp, which overflows'
        assert got == best, f'score {score(got):.3f}, and brute force finds {score(best):.3f}: look back from the end, do not decide while going forward'

@test_case(points=None, hidden=True)
def test_gradient_and_length(log_z, best_tags):
    import torch
    torch.manual_seed(2)
    z, a = (torch.randn(4, 3).double().requires_grad_(), torch.randn(3, 3).double())
    value = log_z(z, a)
    assert value.requires_grad, 'no gradient can flow back to z: do not detach, and do not leave torch'
    grad, = torch.autograd.grad(value.sum(), z)
    assert torch.allclose(grad.sum(-1), torch.ones(4).double()), 'the gradient of log Z by the emissions is a probability for each token: keep the graph'
    z, a = (torch.randn(200, 5).double(), 2 * torch.randn(5, 5).double())
    long, best = (best_tags(z, a), z[0])
    assert len(long) == 200 and set(map(int, long)) <= set(range(5)), '200 tokens give 200 tags from 0 to 4'
    for emission in z[1:]:
        best = (best[:, None] + a).max(dim=0).values + emission
    score = z[range(200), long].sum() + a[long[:-1], long[1:]].sum()
    assert abs(score - best.max()) < 1e-09, f'200 tokens, 5 tags: the path found scores {score:.2f}, the best one {best.max():.2f}'

