from otter.test_files import test_case

OK_FORMAT = False

name = "q3_negative_sampling"
points = 3

@test_case(points=None, hidden=False)
def test_values(loss):
    import torch
    import torch.nn.functional as F
    torch.manual_seed(0)
    h, u, noise = (torch.randn(5, 3).double(), torch.randn(5, 3).double(), torch.randn(5, 4, 3).double())
    found = loss(h, u, noise)
    assert isinstance(found, torch.Tensor) and found.shape == (5,), 'return one loss for each prediction, shape (n,)'
    assert found.dtype == h.dtype, f'{h.dtype} came in, {found.dtype} came out: keep the number type'
    scores = torch.cat([(h * u).sum(-1, keepdim=True), (noise @ h[:, :, None])[..., 0]], dim=1)
    labels = torch.tensor([1.0, 0, 0, 0, 0]).double().expand(5, 5)
    right = F.binary_cross_entropy_with_logits(scores, labels, reduction='none')
    assert not torch.allclose(found, -right.sum(1)), 'the sign: a loss is minus the log-probability'
    assert not torch.allclose(found, right[:, 0] + right[:, 1:].mean(1)), 'sum over the noise words; do not average'
    assert not torch.allclose(found, right[:, 0]), 'the noise words are missing'
    flipped = F.binary_cross_entropy_with_logits(scores, torch.ones(5, 5).double(), reduction='none').sum(1)
    assert not torch.allclose(found, flipped), 'noise words are to be called false: the sign of their scores'
    assert torch.allclose(found, right.sum(1), atol=1e-10), 'it must equal k + 1 binary cross-entropies: label 1 for the true word, 0 for noise'

@test_case(points=None, hidden=False)
def test_large_scores(loss):
    import torch
    import torch.nn.functional as F
    h = torch.tensor([[20.0], [-20.0], [0.5]], requires_grad=True)
    u, noise = (torch.full((3, 1), 10.0), torch.tensor([[[10.0], [-10.0]]]).expand(3, 2, 1))
    found = loss(h, u, noise)
    assert torch.isfinite(found).all(), 'the loss overflows at scores of 200: use a stable logarithm of the sigmoid'
    scores = torch.stack([h[:, 0] * 10, h[:, 0] * 10, -h[:, 0] * 10], dim=1)
    right = F.binary_cross_entropy_with_logits(scores, torch.tensor([[1.0, 0, 0]]).expand(3, 3), reduction='none').sum(1)
    assert found.dtype == h.dtype, f'{h.dtype} came in, {found.dtype} came out: keep the number type'
    assert torch.allclose(found, right, atol=0.0001), 'at large scores the loss grows as the score does: do not clip it'
    assert found.requires_grad, 'no gradient reaches h: stay with tensors, and detach nothing'
    mine = torch.autograd.grad(found.sum(), h, retain_graph=True)[0]
    wanted = torch.autograd.grad(right.sum(), h)[0]
    assert torch.allclose(mine, wanted, atol=0.0001), 'the gradient at large scores is wrong: was something clipped?'

@test_case(points=None, hidden=True)
def test_gradients_and_precision(loss):
    import sys
    import torch
    import torch.nn.functional as F
    from torch.utils._python_dispatch import TorchDispatchMode
    torch.manual_seed(1)
    for n in (1, 3):
        h, u, noise = (torch.randn(s).double().requires_grad_() for s in ((n, 7), (n, 7), (n, 2, 7)))
        found = loss(h, u, noise)
        assert found.shape == (n,), f'{n} prediction(s): the shape is {tuple(found.shape)}, not ({n},)'
        right = F.softplus(-(h * u).sum(-1)) + F.softplus((noise * h[:, None]).sum(-1)).sum(-1)
        assert torch.allclose(found, right, rtol=0, atol=1e-12), '64 bits came in: compute in 64 bits'
        wanted = torch.autograd.grad(right.sum(), (h, u, noise))
        mine = torch.autograd.grad(found.sum(), (h, u, noise), allow_unused=True)
        for name, a, b in zip(('h', 'u', 'noise'), mine, wanted):
            assert a is not None, f'no gradient reaches {name}: detach nothing'
            assert torch.allclose(a, b, atol=1e-10), f'the gradient of {name} is wrong'
    callers = []

    class Watch(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            frame = sys._getframe()
            while frame is not None:
                callers.append(str(frame.f_globals.get('__name__')))
                frame = frame.f_back
            return function(*args, **kwargs or {})
    with Watch():
        loss(*(torch.randn(shape) for shape in ((2, 7), (2, 7), (2, 3, 7))))
    assert not any((c.startswith('minillm.models') for c in callers)), 'write the loss yourself, without minillm'

