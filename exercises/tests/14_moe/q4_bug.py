from otter.test_files import test_case

OK_FORMAT = False

name = "q4_bug"
points = 3

@test_case(points=None, hidden=False)
def test_against_one_token_at_a_time(mixture):
    import torch
    torch.manual_seed(0)
    x = torch.randn(9, 3, dtype=torch.float64)
    matrices = torch.randn(5, 3, 3, dtype=torch.float64)
    sizes = []

    def expert(i):

        def call(rows):
            sizes.append((i, len(rows)))
            return torch.tanh(rows @ matrices[i]) + 0.3 * i
        return call
    weights = torch.zeros(9, 5, dtype=torch.float64)
    for n in range(9):
        a, b = (2 * (n % 2), 3 if n < 5 else 2 - 2 * (n % 2))
        weights[n, a], weights[n, b] = (0.2 + 0.05 * n, 0.7 - 0.05 * n)
    weights[6, 4] = 0.02
    given = (x.clone(), weights.clone())
    out = mixture(*given, [expert(i) for i in range(5)])
    called = list(sizes)
    assert out is not None, 'mixture returned nothing: is the `return` missing?'
    assert torch.equal(given[0], x) and torch.equal(given[1], weights), 'your function changed its input'
    assert tuple(out.shape) == (9, 3), f'the result must have the shape of x, not {tuple(out.shape)}'
    answers = torch.stack([expert(i)(x) for i in range(5)], dim=1)
    right = (weights[..., None] * answers).sum(1)

    def is_(y):
        return (out - y).abs().max() < 1e-09
    last = torch.stack([weights[n, i] * answers[n, i] for n in range(9) for i in [weights[n].nonzero().max()]])
    first = torch.stack([weights[n, i] * answers[n, i] for n in range(9) for i in [weights[n].nonzero().min()]])
    assert not is_(last), 'a token with two experts keeps only the answer of the last one: add to y, do not overwrite it'
    assert not is_(first), 'a token with two experts keeps only the answer of the first one'
    unweighted = ((weights > 0)[..., None] * answers).sum(1)
    assert not is_(unweighted), 'each answer counts with its weight'
    assert not is_(unweighted / 2), 'the answers count with their weights, not half each'
    inner = sum(((weights[:, i, None] > 0) * expert(i)(weights[:, i, None] * x) for i in range(5)))
    assert not is_(inner), "the weight belongs to the expert's answer, not to its input"
    lonely = weights.clone()
    lonely[6, 4] = 0
    assert not is_((lonely[..., None] * answers).sum(1)), 'experts[4] has a single token, with a weight of 0.02, and was left out'
    early = (weights[:, :1, None] * answers[:, :1]).sum(1)
    assert not is_(early), 'the loop stopped at experts[1], which has no tokens: the experts after it have some'
    assert not is_(x + right), 'y starts at zeros, not at x: the residual is added elsewhere'
    assert not is_(right / weights.sum(-1, keepdim=True)), 'the weights are used as they are, whatever their sum'
    gap = (out - right).abs().max().item()
    assert gap < 1e-09, f'differs from one token at a time by {gap:.2g}'
    used = {i: int((weights[:, i] > 0).sum()) for i in range(5)}
    assert (1, 0) not in called, 'experts[1] has no tokens and was called with none: skip it'
    for i in range(5):
        seen = sum((size for j, size in called if j == i))
        assert seen == used[i], f'experts[{i}] was given {seen} tokens, and {used[i]} are sent to it: compute no others'

@test_case(points=None, hidden=False)
def test_gradient(mixture):
    import torch
    torch.manual_seed(1)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, 2, dtype=torch.float64).requires_grad_()
    experts = [lambda rows: rows.sin(), lambda rows: rows ** 2]
    try:
        out = mixture(x, weights, experts)
        assert out is not None and out.requires_grad, 'no gradient reaches x and the weights: no detach, no no_grad, no .data'
        gradients = torch.autograd.grad(out.square().sum(), (x, weights), allow_unused=True)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise AssertionError(f'no gradient flows back through the result (no detach, no item): {error}') from None
    assert all((g is not None for g in gradients)), 'no gradient reaches x or the weights'
    right = weights[:, :1] * x.sin() + weights[:, 1:] * x ** 2
    expected = torch.autograd.grad(right.square().sum(), (x, weights))
    gap = max(((a - b).abs().max().item() for a, b in zip(gradients, expected)))
    assert gap < 1e-09, f'the gradients of x and of the weights are off by {gap:.2g}'

