from otter.test_files import test_case

OK_FORMAT = False

name = "q4_bug"
points = 3

@test_case(points=None, hidden=False)
def test_against_one_token_at_a_time(mixture):
    import torch
    torch.manual_seed(0)
    x = torch.randn(9, 3, dtype=torch.float64)
    matrices = torch.randn(4, 3, 3, dtype=torch.float64)
    sizes = []

    def expert(i):

        def call(rows):
            sizes.append((i, len(rows)))
            return torch.tanh(rows @ matrices[i]) + 0.3 * i
        return call
    weights = torch.zeros(9, 4, dtype=torch.float64)
    for n in range(9):
        a, b = (n % 2, 2 if n < 5 else (n + 1) % 2)
        weights[n, a], weights[n, b] = (0.2 + 0.05 * n, 0.8 - 0.05 * n)
    given = (x.clone(), weights.clone())
    out = mixture(*given, [expert(i) for i in range(4)])
    called = list(sizes)
    assert out is not None, 'mixture returned nothing: is the `return` missing?'
    assert torch.equal(given[0], x) and torch.equal(given[1], weights), 'your function changed its input'
    assert tuple(out.shape) == (9, 3), f'the result must have the shape of x, not {tuple(out.shape)}'
    answers = torch.stack([expert(i)(x) for i in range(4)], dim=1)
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
    inner = sum(((weights[:, i, None] > 0) * expert(i)(weights[:, i, None] * x) for i in range(4)))
    assert not is_(inner), "the weight belongs to the expert's answer, not to its input"
    gap = (out - right).abs().max().item()
    assert gap < 1e-09, f'differs from one token at a time by {gap:.2g}'
    used = {i: int((weights[:, i] > 0).sum()) for i in range(4)}
    assert (3, 0) not in called, 'expert 3 has no tokens and was called with none: skip it'
    for i in range(4):
        seen = sum((size for j, size in called if j == i))
        assert seen == used[i], f'expert {i} was given {seen} tokens, and {used[i]} are sent to it: compute no others'

@test_case(points=None, hidden=False)
def test_gradient(mixture):
    import torch
    torch.manual_seed(1)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, 2, dtype=torch.float64).requires_grad_()
    experts = [lambda rows: rows.sin(), lambda rows: rows ** 2]
    try:
        out = mixture(x, weights, experts)
        gradients = torch.autograd.grad(out.square().sum(), (x, weights), allow_unused=True)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise AssertionError(f'backward fails: {error}') from None
    assert all((g is not None for g in gradients)), 'no gradient reaches x or the weights'
    right = weights[:, :1] * x.sin() + weights[:, 1:] * x ** 2
    expected = torch.autograd.grad(right.square().sum(), (x, weights))
    gap = max(((a - b).abs().max().item() for a, b in zip(gradients, expected)))
    assert gap < 1e-09, f'the gradients of x and of the weights are off by {gap:.2g}'

