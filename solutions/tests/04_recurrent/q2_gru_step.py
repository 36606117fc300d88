from otter.test_files import test_case

OK_FORMAT = False

name = "q2_gru_step"
points = 2

@test_case(points=None, hidden=False)
def test_gates(gru_step):
    import torch
    x, h = (torch.zeros(2, 1), torch.tensor([[0.5], [-0.25]]))
    w, u, c = (torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3))
    keep = gru_step(x, h, w, u, torch.tensor([1000.0, 1000.0, 1.0]), c)
    assert isinstance(keep, torch.Tensor), 'return the new state, a tensor of shape (b, n)'
    assert tuple(keep.shape) == (2, 1), f'the new state has the shape of the old one, (2, 1), not {tuple(keep.shape)}'
    assert torch.isfinite(keep).all(), 'with 1000 in the gates the state is not finite: exp overflows, torch.sigmoid does not'
    new = torch.tanh(torch.tensor(1.0)).item()
    assert not torch.allclose(keep, torch.full((2, 1), new)), 'with the update gate at 1 the old state is kept whole: z belongs to h, 1 - z to the candidate (or the blocks are in another order)'
    assert torch.allclose(keep, h), 'with the update gate at 1 the new state is the old one'
    replaced = gru_step(x, h, w, u, torch.tensor([0.0, -1000.0, 1.0]), c)
    assert torch.allclose(replaced, torch.full((2, 1), new)), 'with the update gate at 0 the new state is the candidate, tanh(b_n) here'

@test_case(points=None, hidden=False)
def test_reset(gru_step):
    import torch
    x, h = (torch.ones(1, 1), torch.ones(1, 1))
    w, u = (torch.tensor([[0.0], [0.0], [0.3]]), torch.tensor([[0.0], [0.0], [0.4]]))
    shut, c = (torch.tensor([-100.0, -100.0, 0.1]), torch.tensor([0.0, 0.0, 0.2]))
    got = gru_step(x, h, w, u, shut, c).item()
    for value, words in [(0.0, 'a shut reset gate silences the state only: x @ w.T + b stays in the candidate'), (0.6, 'with the reset gate shut, the bias c_n goes away too: r multiplies (h @ u.T + c)'), (1.0, 'the reset gate is at 0 here, and the candidate must not hear the state')]:
        assert abs(got - torch.tanh(torch.tensor(value)).item()) > 0.0001, words
    assert abs(got - torch.tanh(torch.tensor(0.4)).item()) < 1e-06, 'expected tanh(x w_n + b_n) = tanh(0.4) with reset and update gates at 0'

@test_case(points=None, hidden=False)
def test_equals_torch(gru_step):
    import torch
    torch.manual_seed(0)
    cell = torch.nn.GRUCell(5, 4).double()
    x, h = (torch.randn(3, 5).double().requires_grad_(), torch.randn(3, 4).double().requires_grad_())
    parts = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    given = [argument.clone() for argument in (x, h, *parts)]
    right, got = (cell(x, h), gru_step(*given))
    same = all((torch.equal(a, b) for a, b in zip(given, [x, h, *parts])))
    assert same, 'leave the arguments as they are: x, h and the weights are still needed'
    assert got.dtype == x.dtype, f'float64 arguments give a float64 state, not {got.dtype}'
    gap = (right - got).abs().max().item()
    assert gap < 1e-12, f'differs from torch.nn.GRUCell by {gap:.2g}: are the blocks in the order reset, update, candidate?'
    assert got.requires_grad, 'no gradient can flow back: do not detach, and stay inside torch'
    ours = torch.autograd.grad(got.sin().sum(), given, allow_unused=True)
    assert all((g is not None for g in ours)), 'one of the six arguments gets no gradient: use them themselves, not copies of their numbers'
    theirs = torch.autograd.grad(right.sin().sum(), [x, h, *parts])
    gap = max(((a - b).abs().max().item() for a, b in zip(ours, theirs)))
    assert gap < 1e-12, f"a gradient differs from torch's by {gap:.2g}: do not detach anything"

