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
    assert isinstance(out, (tuple, list)) and len(out) == 2, 'return two tensors: the weights and the new bias'
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
    assert not is_(scores * (right > 0) / scores.sum(-1, keepdim=True)), 'divide by the sum of the *chosen* scores, not of all'
    soft = (scores * (right > 0)).masked_fill(right == 0, -torch.inf).softmax(-1)
    assert not is_(soft), 'divide by the sum; a softmax of the scores is something else'
    gap = (weights - right).abs().max().item()
    assert gap < 1e-09, f'the weights differ from a choice made token by token by {gap:.2g}'

@test_case(points=None, hidden=False)
def test_new_bias(route):
    import torch

    def moved(scores, bias, k):
        new = route(scores.clone(), bias.clone(), k, 0.01)[1]
        assert tuple(new.shape) == tuple(bias.shape), f'one bias for each expert, not {tuple(new.shape)}'
        return (new, ((new - bias) / 0.01).tolist())

    def right(scores, bias, k):
        n, e = scores.shape
        counts = [0] * e
        for row in (scores + bias).tolist():
            for i in sorted(range(e), key=lambda i: -row[i])[:k]:
                counts[i] += 1
        return (counts, [float((c < n * k / e) - (c > n * k / e)) for c in counts])

    def close(a, b):
        return max((abs(x - y) for x, y in zip(a, b))) < 1e-06
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.9, 0.1, 0.8, 0.2], [0.9, 0.8, 0.2, 0.1], [0.7, 0.1, 0.2, 0.8]], dtype=torch.float64)
    bias = torch.tensor([0.03, -0.01, 0.0, 0.02], dtype=torch.float64)
    new, step = moved(scores, bias, 2)
    assert not close(step, [1, 0, -1, -1]), "the wrong way round: a busy expert's bias goes down"
    assert not close(step, [-2, 0, 1, 1]), 'by the sign of the difference, not by its size'
    assert not close((new / 0.01).tolist(), [-1, 0, 1, 1]), 'the step is added to the old bias'
    assert abs(step[1]) < 1e-06, '4 tokens with 2 choices each on 4 experts are 2 a head: the second expert has exactly that, and its bias stays'
    assert close(step, [-1, 0, 1, 1]), f'counts are 4, 2, 1, 1; the bias should move by -rate, 0, +rate, +rate, not by {[round(x, 3) for x in step]} times rate'
    torch.manual_seed(3)
    for n, e, k in ((7, 5, 2), (11, 4, 2), (6, 5, 1), (6, 7, 3)):
        scores = torch.randn(n, e, dtype=torch.float64).sigmoid()
        bias = torch.linspace(-0.6, 0.6, e, dtype=torch.float64)
        counts, want = right(scores, bias, k)
        plain = right(scores, torch.zeros_like(bias), k)[1]
        step = moved(scores, bias, k)[1]
        assert plain == want or not close(step, plain), 'the tokens are counted as they were sent: by scores + bias, not by the scores alone'
        assert close(step, want), f'experts got {counts} tokens, {n * k / e:g} on average (which need not be a whole number): the bias should move by {want} times rate, and moved by {[round(x, 3) for x in step]}'

