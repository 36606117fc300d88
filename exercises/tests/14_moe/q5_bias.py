from otter.test_files import test_case

OK_FORMAT = False

name = "q5_bias"
points = 3

@test_case(points=None, hidden=False)
def test_weights(route):
    import torch
    torch.manual_seed(0)
    scores = torch.randn(15, 6, dtype=torch.float64).sigmoid()
    bias = torch.tensor([0.0, 0.5, -0.4, 0.1, 0.9, -0.2], dtype=torch.float64)
    given = (scores.clone(), bias.clone())
    out = route(*given, 2, 0.01)
    assert isinstance(out, tuple) and len(out) == 2, 'return two tensors: the weights and the new bias'
    weights = out[0]
    assert torch.equal(given[0], scores) and torch.equal(given[1], bias), 'your function changed its input: make new tensors'
    assert tuple(weights.shape) == (15, 6), f'one weight for each token and expert, not {tuple(weights.shape)}'

    def by(choice, value):
        right = torch.zeros(15, 6, dtype=torch.float64)
        for n in range(15):
            best = sorted(range(6), key=lambda i: -choice[n, i])[:2]
            for i in best:
                right[n, i] = value[n, i] / sum((value[n, j] for j in best))
        return right

    def is_(y):
        return (weights - y).abs().max() < 1e-09
    right = by(scores + bias, scores)
    assert not is_(by(scores + bias, scores + bias)), 'the bias enters the weights: it is for choosing only'
    assert not is_(by(scores, scores)), 'the bias was not used for choosing'
    assert not is_(by(scores, scores + bias)), 'the two roles are swapped: the bias decides who is chosen, not what they count'
    assert not is_(by(scores - bias, scores)), 'the bias is added to the scores, not subtracted'
    assert not is_(scores * (right > 0)), 'divide the chosen scores by their sum: the weights of a token add up to 1'
    soft = (scores * (right > 0)).masked_fill(right == 0, -torch.inf).softmax(-1)
    assert not is_(soft), 'divide by the sum; a softmax of the scores is something else'
    gap = (weights - right).abs().max().item()
    assert gap < 1e-09, f'the weights differ from a choice made token by token by {gap:.2g}'

@test_case(points=None, hidden=False)
def test_new_bias(route):
    import torch
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.9, 0.1, 0.8, 0.2], [0.9, 0.8, 0.2, 0.1], [0.7, 0.1, 0.2, 0.8]], dtype=torch.float64)
    bias = torch.tensor([0.03, -0.01, 0.0, 0.02], dtype=torch.float64)
    _, new = route(scores.clone(), bias.clone(), 2, 0.005)
    assert tuple(new.shape) == (4,), f'one bias for each expert, not {tuple(new.shape)}'
    step = new - bias
    assert not (step - torch.tensor([0.005, 0.0, -0.005, -0.005])).abs().max() < 1e-09, "the wrong way round: a busy expert's bias goes down"
    assert not (step - 0.005 * torch.tensor([-2.0, 0.0, 1.0, 1.0])).abs().max() < 1e-09, 'by the sign of the difference, not by its size'
    assert not (new - torch.tensor([-0.005, 0.0, 0.005, 0.005])).abs().max() < 1e-09, 'the step is added to the old bias'
    assert step[1].abs() < 1e-12, 'expert 2 has exactly the mean number of tokens: its bias stays'
    gap = (step - torch.tensor([-0.005, 0.0, 0.005, 0.005])).abs().max().item()
    assert gap < 1e-09, f'experts got 4, 2, 1 and 1 tokens; the bias should move by -rate, 0, +rate, +rate, and moved by {step.tolist()}'

