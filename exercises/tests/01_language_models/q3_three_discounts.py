from otter.test_files import test_case

OK_FORMAT = False

name = "q3_three_discounts"
points = 3

@test_case(points=None, hidden=False)
def test_by_hand(modified_kneser_ney):
    import torch
    counts = torch.tensor([0, 1, 2, 3, 0, 6])
    shorter = torch.tensor([0.3, 0.1, 0.1, 0.2, 0.2, 0.1], dtype=torch.float64)
    p = modified_kneser_ney(counts, shorter, (0.5, 1.0, 1.5))
    assert isinstance(p, torch.Tensor) and tuple(p.shape) == (6,), 'return a tensor of v probabilities'
    assert counts.tolist() == [0, 1, 2, 3, 0, 6], 'the counts you were given have changed: work on a copy'
    assert shorter.tolist() == [0.3, 0.1, 0.1, 0.2, 0.2, 0.1], 'the distribution `shorter` that you were given has changed: work on a copy'
    assert not (p < 0).any(), 'a probability is negative: take nothing from a count of 0'
    seen = torch.tensor([0, 0.5, 1, 1.5, 0, 4.5], dtype=torch.float64) / 12

    def is_(weight, base=shorter, first=seen):
        return torch.allclose(p.double(), first + weight * base, atol=1e-09)
    uniform = torch.full((6,), 1 / 6, dtype=torch.float64)
    assert not is_(0), 'what was taken is lost: give it to the shorter context'
    assert not is_(4.5 / 12, uniform), 'what was taken goes to `shorter`, not evenly to all'
    assert not is_(4 * 1.5 / 12), 'each token gives its own discount: add up what was really taken'
    assert not is_(4 * 0.5 / 12, first=torch.tensor([0, 0.5, 1.5, 2.5, 0, 5.5]).double() / 12), 'that is one discount for all: use D2 for a count of 2, D3 from 3 on'
    assert not torch.allclose(p.double(), torch.where(counts > 0, seen, shorter * 4.5 / 12)), 'interpolate: seen tokens get their part of `shorter`, too, not only the unseen'
    off = (p - seen - 4.5 / 12 * shorter).abs().max()
    assert not 1e-09 < off < 1e-06, "right to seven digits only: torch.tensor makes float32 of Python's numbers; give it dtype=torch.float64"
    assert abs(p.sum() - 1) < 1e-09, f'the probabilities sum to {p.sum():.4f}: the weight of `shorter` is all that was taken, divided by the sum of the counts'
    assert is_(4.5 / 12), '(count - its discount) / sum of counts + (sum of the discounts taken) / sum of counts * shorter'

@test_case(points=None, hidden=False)
def test_unseen_context(modified_kneser_ney):
    import torch
    shorter = torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64)
    p = modified_kneser_ney(torch.zeros(3, dtype=torch.long), shorter, (0.5, 1.0, 1.5))
    assert p is not None and (not p.isnan().any()), 'a context never seen: return `shorter` instead of dividing 0 by 0'
    assert torch.equal(p, shorter), "a context never seen leaves the shorter context's answer as it is"

