from otter.test_files import test_case

OK_FORMAT = False

name = "q5_threshold"
points = 3

@test_case(points=None, hidden=False)
def test_by_counting(best_threshold):
    import torch
    g = torch.Generator().manual_seed(0)
    labels = (torch.rand(97, generator=g) < 0.25).long()
    scores = (torch.randn(97, generator=g) + 1.2 * labels).double()
    zero = 'division by zero: where nothing found is positive precision and recall are 0, and so is F1; 2 hits / (predicted + there) needs no special case'
    try:
        answer = best_threshold(scores.clone(), labels.clone())
        best_threshold(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0, 0, 1]))
    except ZeroDivisionError as error:
        raise AssertionError(zero) from error
    assert answer is not None and len(answer) == 4, 'return four numbers: threshold, precision, recall, F1'
    threshold, p, r, f = (float(value) for value in answer)
    assert min((abs(s - threshold) for s in scores.tolist())) < 1e-06, 'the threshold is one of the scores'

    def rule(limit):
        tp = sum((s >= limit and y == 1 for s, y in zip(scores.tolist(), labels.tolist())))
        fp = sum((s >= limit and y == 0 for s, y in zip(scores.tolist(), labels.tolist())))
        fn = int(labels.sum()) - tp
        accuracy = 1 - (fp + fn) / 97
        return (tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn), accuracy)
    rules = {s: rule(s) for s in scores.tolist()}
    is_ = lambda value, wanted: abs(value - wanted) < 1e-05
    nearest = min(rules, key=lambda s: abs(s - threshold))
    p_, r_, f_, accuracy = rules[nearest]
    assert not (is_(p, r_) and is_(r, p_) and (not is_(p, r))), 'precision and recall are swapped: precision divides by what was predicted'
    assert is_(p, p_), f'with your threshold {threshold:.3f} (positive: at least that) precision is {p_:.6f}, and not {p:.6f}'
    assert is_(r, r_), f'with your threshold {threshold:.3f} (positive: at least that) recall is {r_:.6f}, and not {r:.6f}'
    assert not (is_(f, (p_ + r_) / 2) and (not is_(f, f_))), 'F1 is the harmonic mean of precision and recall, not the arithmetic one'
    assert is_(f, f_), f'with your threshold {threshold:.3f} F1 of class 1 is {f_:.6f}, and not {f:.6f}'
    best, most = (max((v[2] for v in rules.values())), max((v[3] for v in rules.values())))
    assert not (is_(accuracy, most) and (not is_(f, best))), f'this threshold has the best accuracy; the best F1 is {best:.6f}, and yours {f:.6f}'
    assert is_(f, best), f'another score as threshold gives an F1 of {best:.6f}; yours gives {f:.6f}'
    assert all((isinstance(value, float) for value in answer)), 'the numbers are right, but return Python floats: float(...) of each'

@test_case(points=None, hidden=False)
def test_equal_scores(best_threshold):
    import torch
    cases = {'all scores are equal': ([0.5] * 4, [0, 1, 0, 0], (0.5, 0.25, 1.0, 0.4)), 'an example of each class shares the best score': ([2.0, 2.0, 1.0, 1.0, 1.0], [1, 0, 0, 0, 0], (2.0, 0.5, 1.0, 2 / 3)), 'whole numbers below 0': ([-3.0, -1.0, -2.0], [0, 1, 1], (-2.0, 1.0, 1.0, 1.0)), 'the only positive one has the lowest score': ([3.0, 2.0, 1.0], [0, 0, 1], (1.0, 1 / 3, 1.0, 0.5)), 'one example': ([7.0], [1], (7.0, 1.0, 1.0, 1.0))}
    for name, (scores, labels, wanted) in cases.items():
        found = [float(value) for value in best_threshold(torch.tensor(scores), torch.tensor(labels))]
        assert all((abs(a - b) < 1e-05 for a, b in zip(found, wanted))), f'{name}: expected {[round(v, 3) for v in wanted]}, got {[round(v, 3) for v in found]}: examples of equal score are all in or all out'

