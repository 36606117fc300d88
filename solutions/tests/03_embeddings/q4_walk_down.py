from otter.test_files import test_case

OK_FORMAT = False

name = "q4_walk_down"
points = 3

@test_case(points=None, hidden=False)
def test_small_tree(log_prob):
    import math
    import torch
    paths = [[(0, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 1)]]
    h, nodes = (torch.tensor([1.0, 2.0]).double(), torch.tensor([[0.5, 0.25], [-1.0, 1.0]]).double())
    found = log_prob(h, nodes, paths)
    assert isinstance(found, torch.Tensor) and found.shape == (3,), 'return one number for each word, shape (v,)'
    assert found.dtype == h.dtype, f'{h.dtype} came in, {found.dtype} came out: stay with the tensors you are given'
    s = 1 / (1 + math.exp(-1.0))
    right = torch.tensor([s, (1 - s) * s, (1 - s) * (1 - s)]).double()
    assert not torch.allclose(found, right), 'these are probabilities: return their logarithms'
    assert not torch.allclose(found, -right.log()), 'the sign: log-probabilities are negative'
    flipped = torch.tensor([1 - s, s * (1 - s), s * s]).double().log()
    assert not torch.allclose(found, flipped), 'bit 0 has the probability sigmoid(z), bit 1 the rest: they are swapped'
    assert not torch.allclose(found.exp(), torch.tensor([s, s, 1 - s]).double()), 'only the last node counts here: multiply along the whole path'
    total = found.exp().sum().item()
    assert abs(total - 1) < 1e-06, f'the probabilities sum to {total:.3f}, not to 1: what is the probability of bit 1?'
    assert torch.allclose(found, right.log(), atol=1e-06), 'multiply the decisions along each path'

@test_case(points=None, hidden=False)
def test_gradients_and_large_scores(log_prob):
    import torch
    paths = [[(1, 1)], [(1, 0), (0, 0)], [(1, 0), (0, 1)]]
    h, nodes = (torch.tensor([300.0], requires_grad=True), torch.tensor([[-1.0], [1.0]], requires_grad=True))
    given = [list(path) for path in paths]
    found = log_prob(h, nodes, given)
    assert given == paths, 'the paths that were handed in are changed: work on copies'
    assert torch.isfinite(found).all(), 'at a score of 300 something overflows: use logsigmoid, and sum logarithms'
    right = torch.tensor([-300.0, -300.0, 0.0])
    swapped = torch.tensor([0.0, -300.0, -600.0])
    assert not torch.allclose(found, swapped), 'a pair (node, bit) names its node: take that row, not the place in the path'
    assert torch.allclose(found, right), 'at a score of 300 the log-probabilities are wrong: do not clip'
    assert found.requires_grad, 'gradients do not reach h and nodes: stay with tensors'
    for name, grad, wanted in zip(('h', 'nodes'), torch.autograd.grad(found[0] + found[1], (h, nodes), allow_unused=True), (torch.tensor([-2.0]), torch.tensor([[300.0], [-300.0]]))):
        assert grad is not None, f'no gradient reaches {name}: detach nothing'
        assert torch.allclose(grad, wanted), f'the gradient of {name} is wrong'

@test_case(points=None, hidden=True)
def test_random_tree(log_prob):
    import torch
    rng = torch.Generator().manual_seed(1)
    leaves, m = ([[(0, 0)], [(0, 1)]], 1)
    for _ in range(20):
        path = leaves.pop(int(torch.randint(len(leaves), (1,), generator=rng)))
        leaves += [[*path, (m, 0)], [*path, (m, 1)]]
        m += 1
    h = torch.randn(5, generator=rng).double().requires_grad_()
    nodes = torch.randn(m, 5, generator=rng).double().requires_grad_()
    found = log_prob(h, nodes, leaves)
    p = torch.sigmoid(nodes @ h)
    right = torch.stack([torch.stack([p[n] if b == 0 else 1 - p[n] for n, b in path]).prod() for path in leaves]).log()
    assert found.dtype == h.dtype, f'{h.dtype} came in, {found.dtype} came out: stay with the tensors you are given'
    assert torch.allclose(found, right, atol=1e-08), 'on a larger tree the log-probabilities are wrong'
    assert found.requires_grad, 'gradients do not reach h: stay with tensors'
    mine = torch.autograd.grad(found[3], (h, nodes), allow_unused=True)
    for a, b in zip(mine, torch.autograd.grad(right[3], (h, nodes))):
        assert a is not None, 'gradients must reach h and nodes: detach nothing'
        assert torch.allclose(a, b, atol=1e-08), "the gradient of a word's log-probability is wrong"

