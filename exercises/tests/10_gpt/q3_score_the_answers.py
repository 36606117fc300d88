from otter.test_files import test_case

OK_FORMAT = False

name = "q3_score_the_answers"
points = 4

@test_case(points=None, hidden=False)
def test_score(score):
    import torch
    import torch.nn.functional as F
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=23, max_seq_len=24, d_model=12, n_layers=2, n_heads=2)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    for context, choices in (([5, 2, 9, 14], [[7], [1, 1, 3], [20, 4]]), ([3], [[0, 22], [8]])):
        out = score(model, list(context), [list(choice) for choice in choices])
        assert isinstance(out, torch.Tensor), 'return a tensor with one number a choice: torch.stack or torch.tensor'
        assert tuple(out.shape) == (len(choices),), f'{len(choices)} choices make the shape ({len(choices)},), not {tuple(out.shape)}'
        assert not out.requires_grad, 'gradients are recorded, and nothing is trained here: use torch.no_grad()'
        n = len(context)
        rows = [torch.tensor([[*context, *choice]]) for choice in choices]
        with torch.no_grad():
            logits = [model(row)[0] for row in rows]
        nll = [F.cross_entropy(z[:-1], row[0, 1:], reduction='none') for z, row in zip(logits, rows)]
        right = -torch.stack([loss[n - 1:].sum() for loss in nll])

        def is_(values):
            values = torch.as_tensor(values).double()
            return (out.double() - values).abs().max() < 1e-06 < (values - right).abs().max()
        assert not is_(-right), 'the sign: log-probabilities are negative, and the likeliest answer has the largest one'
        assert not is_(right.exp()), 'those are probabilities: return their logarithms'
        assert not is_(right / torch.tensor(2.0).log()), 'those are bits: take natural logarithms'
        assert not is_(right / torch.tensor([len(c) for c in choices])), 'that is the mean over the tokens of a choice: the probability of a text is a product, so its logarithm is a sum'
        assert not is_([-loss.sum() for loss in nll]), 'the tokens of the context are counted, too: only those of the choice are scored'
        assert not is_([-loss[n - 1] for loss in nll]), 'only the first token of each choice is scored'
        assert not is_([-loss[n:].sum() for loss in nll]), 'the first token of each choice is missing: it is predicted at the last position of the context'
        late = [sum((z[n + i].log_softmax(-1)[t] for i, t in enumerate(c))) for z, c in zip(logits, choices)]
        assert not is_(late), "off by one: logits[:, j] is about the token after position j, so a choice's first token is predicted at position len(context) - 1"
        raw = [sum((z[n - 1 + i][t] for i, t in enumerate(c))) for z, c in zip(logits, choices)]
        assert not is_(raw), 'those are logits: they become comparable as log-probabilities, log_softmax over the vocabulary'
        gap = (out.double() - right).abs().max().item()
        assert gap < 1e-06, f"differs from torch's cross-entropy of the choice's tokens by {gap:.2g}: one sequence for each choice, softmax over the vocabulary, no padding counted"

@test_case(points=None, hidden=False)
def test_calibrated(calibrated):
    import torch

    class Table(torch.nn.Module):
        """Predicts the next token from the present one alone, by a table."""

        def __init__(self):
            super().__init__()
            p = torch.full((8, 8), 1 / 8, dtype=torch.float64)
            for row, likely in {1: (0.6, 0.25, 0.1), 5: (0.8, 0.1, 0.05), 6: (0.6, 0.02, 0.1), 7: (0.4, 0.005, 0.09)}.items():
                p[row] = (1 - sum(likely)) / 5
                p[row, 2:5] = torch.tensor(likely, dtype=torch.float64)
            self.register_buffer('logits', p.log())

        def forward(self, tokens):
            return self.logits[tokens]
    place = calibrated(Table(), [1], [5], [[2], [3], [4]])
    assert isinstance(place, int) and (not isinstance(place, bool)), 'return a Python int: .item() or int(...)'
    assert place in (0, 1, 2), f'{place} is no place among three choices'
    assert place != 0, 'choice 0 is the likeliest behind the question, and likelier still behind the neutral one: take that off'
    assert place == 1, 'ratios count: 0.60/0.80, 0.25/0.10 and 0.10/0.05; the second is the largest. Subtract logarithms, score behind the question minus score behind `neutral`'
    assert calibrated(Table(), [5], [1], [[2], [3], [4]]) == 0, 'with the two contexts exchanged choice 0 gains most: which of them is `context`?'
    place, said = (calibrated(Table(), [6], [7], [[2], [3], [4]]), '0.60/0.40, 0.02/0.005 and 0.10/0.09: the second is the largest')
    assert place != 0, f'{said}. 0.60 - 0.40 is the largest difference of *probabilities*, but ratios count: subtract logarithms, and all of the neutral one, not a part'
    assert place != 2, f'{said}. Subtract one score from the other; a score divided by a score is no ratio of probabilities'
    assert place == 1, f'{said}. Subtract the score behind `neutral` from that behind the question'
    assert calibrated(Table(), [6], [7], [[2], [4], [3]]) == 2, f'the same choices in another order; {said}, and now it stands last'
    place = calibrated(Table(), [6], [7], [[2], [3, 2, 2, 2]])
    assert place == 1, 'a choice of four tokens, four times as likely behind the question, against one of one token, 1.5 times as likely: take no mean over tokens, neither score is divided by a length'

@test_case(points=None, hidden=False)
def test_everything_adds_up(score):
    import torch
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=9, max_seq_len=12, d_model=8, n_layers=2, n_heads=2)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    pairs = [[a, b] for a in range(9) for b in range(9)]
    total = score(model, [4, 0, 7], pairs).exp().sum().item()
    assert abs(total - 1) < 1e-06, f'the 81 choices of two tokens exclude each other, and one of them must come: their probabilities add up to {total:.4f} instead of 1'

