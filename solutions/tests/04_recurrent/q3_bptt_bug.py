from otter.test_files import test_case

OK_FORMAT = False

name = "q3_bptt_bug"
points = 3

@test_case(points=None, hidden=False)
def test_two_steps(bptt):
    import torch
    x = torch.tensor([[0.5, -0.3], [0.2, 0.1]], dtype=torch.float64)
    u = torch.tensor([[0.4, -0.2], [0.7, 0.3]], dtype=torch.float64)
    got = bptt(x, u)
    assert isinstance(got, torch.Tensor) and tuple(got.shape) == (2, 2), 'return a tensor of the shape of u'
    first = torch.tanh(x[0])
    last = torch.tanh(x[1] + first @ u)
    right, early = (torch.outer(first, 1 - last ** 2), torch.outer(first, 1 - first ** 2))
    assert got.abs().max() > 0, 'the gradient of the earlier steps was overwritten: U is used at every step, and the shares add up'
    assert not torch.allclose(got, early), 'the derivative of tanh at a step is 1 - h² of the state *after* that step'
    assert not torch.allclose(got, right.T), 'rows of U belong to the old state, columns to the new one: the outer product is turned round'
    assert not torch.allclose(got, torch.outer(first, torch.ones(2).double())), 'the derivative of tanh is missing'
    assert torch.allclose(got, right), 'after two steps dL/dU is the outer product of the first state and 1 - (last state)²'

@test_case(points=None, hidden=False)
def test_equals_autograd(bptt):
    import torch
    for seed, (t, n) in enumerate([(3, 2), (7, 4), (12, 3)]):
        torch.manual_seed(seed)
        x, u = (torch.randn(t, n).double(), torch.randn(n, n).double())
        leaf = u.clone().requires_grad_()
        h = torch.zeros(n).double()
        for row in x:
            h = torch.tanh(row + h @ leaf)
        h.sum().backward()
        gap = (bptt(x, u) - leaf.grad).abs().max().item()
        assert gap < 1e-12, f'two steps are right, {t} steps differ from autograd by {gap:.2g}: is the sum complete, and does the gradient go back through u transposed?'

@test_case(points=None, hidden=False)
def test_without_autograd(bptt):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    names = []

    class Names(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **kwargs or {})
    with Names():
        got = bptt(torch.full((3, 2), 0.1).double(), torch.eye(2).double())
    assert isinstance(got, torch.Tensor), 'return a tensor of the shape of u'
    assert not any(('backward' in name for name in names)), 'autograd is at work here: mend the loop that walks back by hand'

@test_case(points=None, hidden=True)
def test_nothing_is_changed(bptt):
    import torch
    torch.manual_seed(5)
    x, u = (torch.randn(6, 3).double(), torch.randn(3, 3).double())
    before = (x.clone(), u.clone())
    once, twice = (bptt(x, u), bptt(x, u))
    assert torch.equal(once, twice), 'two calls give two results: keep nothing between calls'
    assert torch.equal(x, before[0]) and torch.equal(u, before[1]), 'leave the arguments as they are'

