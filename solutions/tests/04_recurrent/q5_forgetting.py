from otter.test_files import test_case

OK_FORMAT = False

name = "q5_forgetting"
points = 2

@test_case(points=None, hidden=False)
def test_share(gradient_share):
    import torch

    def decay(rate, scale=1.0):

        def model(x):
            h, rows = (torch.zeros_like(x[:, 0]), [])
            for t in range(x.shape[1]):
                h = rate * h + scale * x[:, t]
                rows.append(h)
            return torch.stack(rows, dim=1)
        return model
    torch.manual_seed(0)
    x = torch.randn(3, 5, 2).double()
    got = gradient_share(decay(0.5), x)
    assert isinstance(got, float), f'return a Python float, not a {type(got).__name__}: .item()'
    assert abs(got - 16) > 1e-06, 'upside down: the first token over the last one'
    assert abs(got - 1.9375) > 1e-06, 'the loss looks at the *last* output only, [:, -1]; yours sums all outputs'
    assert abs(got - 0.0625) < 1e-09, f'a state that halves at each step leaves 0.5 ** 4 = 0.0625 after five tokens, not {got:.4f}'
    assert abs(gradient_share(decay(0.9, scale=3.0), x) - 0.9 ** 4) < 1e-09, 'a factor on the inputs must cancel: divide by the norm at the last token'
    got, right = (gradient_share(decay(0.98), torch.randn(2, 120, 2).double()), 0.98 ** 119)
    assert abs(got - right) < 1e-09, f'120 tokens at 0.98 a step leave {right:.4f}, not {got:.4f}: the last token is [:, -1], however long the text is'

@test_case(points=None, hidden=False)
def test_share_of_a_batch(gradient_share):
    import torch
    torch.manual_seed(1)
    net = torch.nn.LSTM(3, 4, batch_first=True).double()
    x = torch.randn(5, 7, 3).double()
    leaf = x.clone().requires_grad_()
    grad, = torch.autograd.grad(net(leaf)[0][:, -1].sum(), leaf)
    right = (grad[:, 0].norm() / grad[:, -1].norm()).item()
    before = x.clone()
    got = gradient_share(lambda x: net(x)[0], x)
    assert abs(got - (grad[0, 0].norm() / grad[0, -1].norm()).item()) > 1e-09, 'take the norm over the whole batch, not over its first row'
    assert abs(got - right) < 1e-09, f'an LSTM leaves {right:.5f} here, not {got:.5f}: Euclidean norms over batch and width'
    assert torch.equal(x, before) and (not x.requires_grad), 'work on a copy: x itself must not ask for gradients afterwards'
    assert all((p.grad is None for p in net.parameters())), "the model's parameters have gradients now: ask torch.autograd.grad for that of x alone"

@test_case(points=None, hidden=False)
def test_smallest_bias(smallest_bias):
    from functools import partial
    import torch
    from minillm.nn import LSTMCell, Recurrent

    def left(bias):
        torch.manual_seed(0)
        layer = Recurrent(partial(LSTMCell, forget_bias=bias), 16, 64)
        x = torch.randn(8, 100, 16).requires_grad_()
        layer(x)[0][:, -1].sum().backward()
        return (x.grad[:, 0].norm() / x.grad[:, -1].norm()).item()
    assert smallest_bias in range(7), 'one of the whole numbers from 0 to 6'
    assert left(smallest_bias) > 0.1, f'with bias {smallest_bias} only {left(smallest_bias):.1e} is left'
    assert smallest_bias == 0 or left(smallest_bias - 1) <= 0.1, f'a smaller bias is enough: {smallest_bias - 1} leaves {left(smallest_bias - 1):.2f}'

