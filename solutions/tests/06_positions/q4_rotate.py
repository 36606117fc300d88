from otter.test_files import test_case

OK_FORMAT = False

name = "q4_rotate"
points = 4

@test_case(points=None, hidden=False)
def test_one_pair(rotate):
    import math
    import torch
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for layout in ('pairs', 'halves'):
        rotate(x, torch.tensor([3]), 10000.0, layout)
        assert x.tolist() == [[1.0, 0.0]], '`x` itself was changed: write the result into a new tensor'
        still = rotate(x, torch.tensor([0]), 10000.0, layout)
        assert tuple(still.shape) == (1, 2), f'the result must have the shape of x, (1, 2), not {tuple(still.shape)}'
        assert torch.allclose(still, x), 'at position 0 nothing turns'
        out = rotate(x, torch.tensor([3]), 10000.0, layout)[0]
        right = torch.tensor([math.cos(3), math.sin(3)], dtype=torch.float64)
        assert not torch.allclose(out, right * torch.tensor([1, -1])), 'turned the other way: mind the signs of the sines'
        degrees = torch.tensor([math.cos(math.radians(3)), math.sin(math.radians(3))], dtype=torch.float64)
        assert not torch.allclose(out, degrees), 'angles are in radians'
        assert torch.allclose(out, right), f'(1, 0) at position 3 becomes (cos 3, sin 3); layout {layout!r} gave {out.tolist()}'

@test_case(points=None, hidden=False)
def test_layouts(rotate):
    import math
    import torch
    x = torch.eye(6, dtype=torch.float64)
    where = {'pairs': [(0, 1), (2, 3), (4, 5)], 'halves': [(0, 3), (1, 4), (2, 5)]}
    for layout, pairs in where.items():
        out = rotate(x, torch.full((6,), 2), 100.0, layout)
        assert tuple(out.shape) == (6, 6), 'the result must have the shape of x'
        for row in range(6):
            pair = next((p for p in pairs if row in p))
            touched = {i for i in range(6) if abs(out[row, i]) > 1e-09}
            assert touched <= set(pair), f'layout "{layout}": number {row} was mixed with {sorted(touched - {row})} or put back in the wrong place; its partner is {(set(pair) - {row}).pop()}'
        for i, (one, two) in enumerate(pairs):
            found = math.atan2(out[one, two], out[one, one]) % (2 * math.pi)
            right = 2 * 100.0 ** (-2 * i / 6)
            assert abs(found - 2 * 100.0 ** (-i / 6)) > 1e-06 or i == 0, 'the exponent is -2i/p for pair number i'
            assert i == 0 or abs(found - 2 * 100.0 ** (-2 * i / 3)) > 1e-06, 'p is the number of numbers in a row, not of pairs'
            assert abs(found - right) < 1e-06, f'pair {i} turned by {found:.4f} at position 2, expected 2 * base^(-2*{i}/6) = {right:.4f}'

@test_case(points=None, hidden=False)
def test_only_the_distance_counts(rotate):
    import torch
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 8, dtype=torch.float64)
    for layout in ('pairs', 'halves'):

        def score(m, n):
            return (rotate(q, torch.tensor([m]), 10000.0, layout) * rotate(k, torch.tensor([n]), 10000.0, layout)).sum().item()
        assert abs(score(5, 2) - score(45, 42)) < 1e-05, f'layout {layout!r}: scores must depend on the distance only'
        length = rotate(q, torch.tensor([9]), 10000.0, layout).norm()
        assert abs(length - q.norm()) < 1e-05, f'layout {layout!r}: turning does not change lengths'

@test_case(points=None, hidden=True)
def test_oracle(rotate):
    import torch
    from minillm.nn import Rotary, rotary_frequencies, rotate_halves, rotate_pairs
    torch.manual_seed(1)
    x, positions = (torch.randn(7, 10, dtype=torch.float64), torch.tensor([0, 5, 2, 2, 99, 1000, 3]))
    for layout, function in (('pairs', rotate_pairs), ('halves', rotate_halves)):
        for base in (10000.0, 500000.0):
            rotary = Rotary(rotary_frequencies(10, base=base), rotate=function)
            right = rotary(x[None, None], positions[None])[0, 0]
            out = rotate(x, positions, base, layout)
            assert out.shape == right.shape, 'the result must have the shape of x'
            gap = (out - right).abs().max().item()
            assert gap < 0.0001, f"differs from minillm's by {gap:.2g} with layout {layout!r}, base {base:g}: is `base` used, each row turned by its own position?"

