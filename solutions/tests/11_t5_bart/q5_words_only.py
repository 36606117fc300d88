from otter.test_files import test_case

OK_FORMAT = False

name = "q5_words_only"
points = 3

@test_case(points=None, hidden=False)
def test_small_batch(words_loss):
    import torch
    import torch.nn.functional as F
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7, dtype=torch.float64) * 2
    targets = torch.tensor([[6, 1, 2, 5, -100], [6, 3, 5, -100, -100], [6, 0, 1, 2, 5]])
    special = [5, 6]
    found = words_loss(logits.clone().requires_grad_(), targets.clone(), list(special))
    assert found is not None, 'words_loss returned nothing'
    assert isinstance(found, torch.Tensor), f'a tensor is expected, not {type(found).__name__}: with a plain number no model can be trained (leave out .item())'
    assert found.numel() == 1, f'one number is expected, not shape {tuple(found.shape)}'
    each = F.cross_entropy(logits.mT, targets, reduction='none', ignore_index=-100)
    word = (targets != -100) & (targets != 5) & (targets != 6)

    def is_(value):
        return abs(found.item() - float(value)) < 1e-05
    assert not is_(each[targets != -100].mean()), 'the special ids are still counted: they are no words'
    assert not is_(each[word].sum()), 'that is the sum; divide by the number of words'
    assert not is_(each[word].sum() / targets.numel()), 'divide by the number of words, not of all places'
    assert not is_(each[word].sum() / (targets != -100).sum()), 'divide by the number of words, without the special ones'
    rows = torch.stack([e[w].mean() for e, w in zip(each, word)])
    assert not is_(rows.mean()), "a mean of each row's mean gives short rows too much weight: one mean over all words"
    assert not is_(-each[word].mean()), 'the sign: surprise is -log p, a positive number'
    assert not is_(each[word].mean() / torch.log(torch.tensor(2.0))), 'that is in bits; nats are asked for'
    assert not is_(each[word & (targets != 0)].mean()), 'id 0 is a word like any other here: padding is -100'
    right = F.cross_entropy(logits[word], targets[word])
    assert is_(right), f"PyTorch's cross_entropy over the words gives {float(right):.6f}, yours is {found.item():.6f}"
    assert found.requires_grad, 'the result is cut off from the logits (detach, no_grad, a new tensor): nothing could be learned from it'

@test_case(points=None, hidden=False)
def test_traps(words_loss):
    import torch
    logits = torch.zeros(1, 3, 4, dtype=torch.float64)
    logits[0, 0] = torch.tensor([1000.0, 0.0, -1000.0, 990.0])
    targets = torch.tensor([[3, 0, 1]])
    for word, right in ((3, 10.0000454), (2, 2000.0000454)):
        targets[0, 0] = word
        value = float(words_loss(logits.clone(), targets.clone(), [0, 1]))
        assert value == value and abs(value) != float('inf'), 'with logits of ±1000 exp overflows, or gives a 0 whose log is -inf: use log_softmax on the logits'
        assert abs(value - right) < 0.01, f'-log p of a word {round(right)} below the best one is {right:.2f}, yours is {value:.2f} (no exp, no small number added, nothing clamped: log_softmax on the logits)'
    targets[0, 0] = 3
    none = float(words_loss(logits.clone(), targets.clone(), []))
    assert abs(none - (10.0000454 + 2 * 1.3862944) / 3) < 0.001, 'with no special ids every target counts, id 0 too'
    try:
        words_loss(logits, torch.full((1, 3), -100), [0])
    except ValueError:
        pass
    else:
        raise AssertionError('a batch without a single word must raise a ValueError, not return nan or 0')

@test_case(points=None, hidden=True)
def test_gradient_and_sizes(words_loss):
    import torch
    import torch.nn.functional as F
    torch.manual_seed(4)
    for b, t, v in ((1, 1, 9), (4, 11, 31)):
        logits = torch.randn(b, t, v, dtype=torch.float64, requires_grad=True)
        targets = torch.randint(0, v, (b, t))
        targets[0, 0] = 8
        targets[:, t // 2 + 1:].masked_fill_(torch.rand(b, t - t // 2 - 1) < 0.5, -100)
        special = [1, 4]
        word = (targets != -100) & (targets != 1) & (targets != 4)
        right = F.cross_entropy(logits[word], targets[word])
        found = words_loss(logits, targets, special)
        assert abs(found.item() - right.item()) < 1e-05, f'wrong for a batch of {b} texts with {t} targets'
        expected, = torch.autograd.grad(right, logits)
        gradient, = torch.autograd.grad(found, logits)
        assert torch.allclose(gradient, expected, atol=1e-06), 'the gradient is not that of the mean over words'

