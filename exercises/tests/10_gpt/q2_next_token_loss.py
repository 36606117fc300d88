from otter.test_files import test_case

OK_FORMAT = False

name = "q2_next_token_loss"
points = 4

@test_case(points=None, hidden=False)
def test_which_token_is_predicted(next_token_loss):
    import math
    import torch
    tokens = torch.tensor([[0, 1, 2, 3]])
    real = torch.ones(1, 4, dtype=torch.bool)
    right = torch.zeros(1, 4, 5)
    right[0, torch.arange(4), [1, 2, 3, 4]] = 100.0
    same = torch.zeros(1, 4, 5)
    same[0, torch.arange(4), [0, 1, 2, 3]] = 100.0
    before = torch.zeros(1, 4, 5)
    before[0, torch.arange(4), [4, 0, 1, 2]] = 100.0
    loss = next_token_loss(right.clone().requires_grad_(), tokens, real)
    assert loss is not None, 'your function returns None: return a tensor with one number'
    assert isinstance(loss, torch.Tensor), f'return a tensor, not {type(loss).__name__}: nothing can be trained with it (no .item(), no float)'
    assert loss.numel() == 1, 'return one number: the mean over all predictions'
    assert loss.requires_grad, 'no gradient flows to the logits, so nothing can be trained: no detach, no no_grad, no new tensor made from numbers'
    loss = loss.detach()
    even = float(next_token_loss(torch.zeros(1, 4, 5), tokens, real))
    assert even != 0, 'equal logits of 0 give loss 0: logits are not log-probabilities yet, take their log_softmax'
    assert even > 0, 'the loss is negative: it is *minus* the log-probability'
    assert not float(next_token_loss(same, tokens, real)) < 1, 'a model that repeats what it has just read gets a perfect loss: shift, logits[:, :-1] belong to tokens[:, 1:]'
    assert not float(next_token_loss(before, tokens, real)) < 1, 'a model that predicts the token before gets a perfect loss: you shifted in the wrong direction'
    assert abs(float(loss)) < 0.001, 'a model that is sure of every next token, and right, must have loss 0: position i is judged by token i + 1, once, and the last one not at all'
    assert abs(even - math.log2(5)) > 0.001, 'that is in bits: use the natural logarithm'
    assert abs(even - 3 * math.log(5)) > 0.001, 'take the mean over the predictions, not the sum'
    assert abs(even - 0.75 * math.log(5)) > 0.001, '4 tokens give 3 predictions: divide by 3, not by 4'
    assert abs(even - math.log(5)) < 1e-05, f'equal logits for 5 tokens give ln 5 = 1.6094, not {even:.4f}'
    rare = float(next_token_loss(same, tokens, real))
    assert not rare < 99, f'a probability of e^-100 has the loss 100, not {rare:.4g}: add nothing to it and do not clamp it, log_softmax is exact'

@test_case(points=None, hidden=False)
def test_padding(next_token_loss):
    import torch
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7, dtype=torch.float64)
    tokens = torch.randint(7, (2, 5))
    real = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    given = [x.clone() for x in (logits, tokens, real)]
    loss = next_token_loss(logits, tokens, real)
    assert isinstance(loss, torch.Tensor), 'return a tensor with one number'
    loss = float(loss)
    for name, now, then in zip(('logits', 'tokens', 'real'), (logits, tokens, real), given):
        assert torch.equal(now, then), f"the caller's {name} were changed: a slice shares its memory; use masked_fill, or clone first"
    changed = logits.clone()
    changed[1, 2:] += 50 * torch.randn(3, 7, dtype=torch.float64)
    assert abs(float(next_token_loss(changed, tokens, real)) - loss) < 1e-09, 'logits at padding change the loss: they predict nothing that is real'
    changed = logits.clone()
    changed[1, 1] += 50 * torch.randn(7, dtype=torch.float64)
    assert abs(float(next_token_loss(changed, tokens, real)) - loss) < 1e-09, 'the last real token of a text is asked for what comes next, which is padding: judge where the *predicted* token is real'
    terms = [-logits[row, i].log_softmax(-1)[tokens[row, i + 1]].item() for row, i in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0))]
    by_row = (sum(terms[:4]) / 4 + terms[4]) / 2
    assert abs(loss - by_row) > 1e-09, "that is the mean of each text's mean: take one mean over all predictions of the batch"
    assert abs(loss - sum(terms) / 8) > 1e-09, 'you divide by all places, padding included: divide by the number of predictions that count'
    assert abs(loss - sum(terms) / 5) < 1e-09, 'five predictions count here: four of the first text, one of the second'

@test_case(points=None, hidden=False)
def test_large_logits(next_token_loss):
    import torch
    tokens, real = (torch.tensor([[0, 1, 0]]), torch.ones(1, 3, dtype=torch.bool))
    logits = torch.tensor([[[10000.0, 0.0], [10000.0, 0.0], [0.0, 0.0]]])
    loss = next_token_loss(logits, tokens, real)
    assert isinstance(loss, torch.Tensor), 'return a tensor with one number'
    loss = float(loss)
    assert loss == loss and loss != float('inf'), 'large logits give NaN or infinity: use log_softmax, not log of softmax or of exp'
    assert abs(loss - 5000) < 0.01, f'one prediction is off by 10,000 nats and one is perfect: the mean is 5000, not {loss:.6g}'

