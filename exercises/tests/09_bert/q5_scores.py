from otter.test_files import test_case

OK_FORMAT = False

name = "q5_scores"
points = 3

@test_case(points=None, hidden=False)
def test_by_counting(macro_scores):
    import torch
    g = torch.Generator().manual_seed(0)
    weights = torch.tensor([8.0, 3.0, 1.0])
    targets = torch.multinomial(weights, 97, True, generator=g)
    predictions = torch.where(torch.rand(97, generator=g) < 0.6, targets, torch.multinomial(weights, 97, True, generator=g))
    answer = macro_scores(targets.clone(), predictions.clone(), 3)
    assert answer is not None and len(answer) == 3, 'return three numbers: precision, recall, F1'
    p, r, f = (float(value) for value in answer)
    counts = [[sum((1 for t, q in zip(targets.tolist(), predictions.tolist()) if (t, q) == (i, j))) for j in range(3)] for i in range(3)]
    called = [sum((row[k] for row in counts)) for k in range(3)]
    there = [sum(counts[k]) for k in range(3)]
    ps = [counts[k][k] / called[k] for k in range(3)]
    rs = [counts[k][k] / there[k] for k in range(3)]
    fs = [2 * a * b / (a + b) for a, b in zip(ps, rs)]
    mean = lambda values: sum(values) / 3
    accuracy = sum((counts[k][k] for k in range(3))) / 97
    is_ = lambda value, wanted: abs(value - wanted) < 1e-05
    assert not (is_(p, mean(rs)) and is_(r, mean(ps))), 'precision and recall are swapped: precision divides by what was predicted'
    assert not is_(p, accuracy), 'that is the accuracy, which is the *micro* average; macro is the mean over classes'
    weighted = sum((a * n for a, n in zip(ps, there))) / 97
    assert not is_(p, weighted), 'each class counts the same in the macro average, however many examples it has'
    assert is_(p, mean(ps)), f'macro precision is {mean(ps):.6f}, and not {p:.6f}: the mean of hits / predicted'
    assert is_(r, mean(rs)), f'macro recall is {mean(rs):.6f}, and not {r:.6f}: the mean of hits / there'
    both = 2 * p * r / (p + r)
    assert not is_(f, both), "that is the F1 of the mean precision and recall; wanted is the mean of the classes' F1"
    assert not is_(f, (p + r) / 2), 'F1 is the harmonic mean of precision and recall, not the arithmetic one'
    assert is_(f, mean(fs)), f"macro F1 is {mean(fs):.6f}, and not {f:.6f}: the mean of the classes' F1"
    assert all((isinstance(value, float) for value in answer)), 'the numbers are right, but return Python floats: float(...) of each'

@test_case(points=None, hidden=False)
def test_classes_that_are_missing(macro_scores):
    import math
    import torch
    cases = {'a class that is never predicted': ([0, 0, 1, 1], [0, 0, 0, 0], 2, (0.25, 0.5, 1 / 3)), 'a class that never occurs': ([0, 0, 0], [0, 1, 0], 2, (0.5, 1 / 3, 0.4)), 'a class that is neither there nor predicted': ([0, 1, 0], [0, 1, 0], 3, (2 / 3, 2 / 3, 2 / 3))}
    for name, (targets, predictions, n, wanted) in cases.items():
        try:
            found = [float(v) for v in macro_scores(torch.tensor(targets), torch.tensor(predictions), n)]
        except ZeroDivisionError as error:
            raise AssertionError(f'{name}: division by zero; such a score is 0') from error
        assert not any((math.isnan(v) for v in found)), f'{name}: 0/0 gave NaN; such a score is 0'
        assert all((abs(a - b) < 1e-05 for a, b in zip(found, wanted))), f'{name}: expected {[round(v, 3) for v in wanted]}, got {[round(v, 3) for v in found]}: it counts as 0 in the mean over n_classes'

