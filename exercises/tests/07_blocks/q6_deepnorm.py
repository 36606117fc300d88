from otter.test_files import test_case

OK_FORMAT = False

name = "q6_deepnorm"
points = 3

@test_case(points=None, hidden=False)
def test_factors(factors):
    answer = factors(8)
    assert answer is not None and len(answer) == 2, 'return two numbers, alpha and beta'
    alpha, beta = (float(a) for a in answer)
    assert (round(alpha, 6), round(beta, 6)) != (0.353553, 2.0), 'alpha comes first; it is the one above 1'
    assert abs(alpha - 4) > 1e-09, 'that is a square root; alpha is a fourth root'
    assert abs(alpha - 24 ** 0.25) > 1e-09, 'that is the decoder of an encoder-decoder; this model is a decoder alone'
    assert abs(alpha - 64 ** 0.25) > 1e-09, 'alpha is the fourth root of 2 L; 8 L belongs to beta'
    assert abs(alpha - 2.0) < 1e-09, f'for 8 layers alpha is the fourth root of 16, and not {alpha:.4f}'
    assert beta < 1, 'beta makes the initial weights smaller: it is below 1'
    assert abs(beta - 16 ** (-0.25)) > 1e-09, 'beta has 8 L under its root where alpha has 2 L'
    assert abs(beta - 64 ** (-0.25)) < 1e-09, f'for 8 layers beta is one over the fourth root of 64, and not {beta:.4f}'

@test_case(points=None, hidden=False)
def test_deep(deep):
    import torch
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    weight = torch.randn(6, 6, dtype=torch.float64)
    part = lambda y: torch.tanh(y @ weight)
    norm = lambda y: torch.nn.functional.layer_norm(y, (6,), eps=0.0)
    out = deep(x.clone(), part, norm, 1.7)
    assert out is not None and tuple(out.shape) == (2, 3, 6), 'return a tensor of the shape of x'
    wrong = {'alpha is missing, or it multiplies the whole sum, and the norm undoes that': norm(x + part(x)), 'alpha multiplies the stream, not the update': norm(x + 1.7 * part(x)), 'the norm acts on the sum; in front of the part is pre-norm': 1.7 * x + part(norm(x)), 'the sum is not normalized': 1.7 * x + part(x), 'the part reads the stream as it is, not multiplied by alpha': norm(1.7 * x + part(1.7 * x)), 'the norm acts on the sum, not on the update alone': 1.7 * x + norm(part(x))}
    for message, y in wrong.items():
        assert not (out - y).abs().max() < 1e-09, message
    gap = (out - norm(1.7 * x + part(x))).abs().max().item()
    assert gap < 1e-09, f'norm(alpha x + part(x)) is wanted, and this differs by {gap:.2g}'

