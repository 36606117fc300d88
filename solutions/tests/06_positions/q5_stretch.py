from otter.test_files import test_case

OK_FORMAT = False

name = "q5_stretch"
points = 3

@test_case(points=None, hidden=False)
def test_three_kinds(stretch):
    import math
    import torch
    turns = torch.tensor([40.0, 4.5, 2.5, 0.5, 0.01], dtype=torch.float64)
    theta = turns * 2 * math.pi / 1000
    before = theta.clone()
    new = stretch(theta, 8, 1000)
    assert torch.equal(theta, before), '`theta` itself was changed: make a new tensor'
    assert tuple(new.shape) == (5,), f'one frequency per pair, shape (5,), not {tuple(new.shape)}'
    slower = (theta / new).tolist()
    assert not (slower[0] > 7.9 and slower[-1] < 1.1), 'the other way round: fast pairs stay, slow ones are divided by the factor'
    assert max(slower) < 8.001 and min(slower) > 0.999, 'no pair gets faster, and none slower than divided by the factor'
    assert not all((abs(s - 8) < 1e-09 for s in slower)), 'that is position interpolation: pairs with many turns stay as they are'
    assert abs(slower[0] - 1) < 1e-09, 'a pair with 40 turns stays as it is'
    border_32 = 1 / ((1 - 3.5 / 31) / 8 + 3.5 / 31)
    assert abs(slower[1] - border_32) > 1e-06, "the upper border of Llama 3.1's rule is 4 turns; 32 is YaRN's"
    assert abs(slower[1] - 1) < 1e-09, 'a pair with 4.5 turns stays as it is: how is the number of turns computed?'
    radians = (math.pi - 1) / 3
    assert abs(slower[3] - 1 / ((1 - radians) / 8 + radians)) > 1e-06, 'trained_len * theta is an angle in radians: divide it by 2 pi to get full turns'
    assert abs(slower[3] - 8) < 1e-09 and abs(slower[4] - 8) < 1e-09, 'pairs with less than one turn are divided by the factor'
    mixed = (new[2] / theta[2]).item()
    assert abs(mixed - 1 / (0.5 * 8 + 0.5)) > 1e-06, 'mix the frequencies, not the wavelengths'
    assert abs(mixed - (0.5 / 8 + 0.5)) < 1e-09, '2.5 turns lie half-way between 1 and 4: half of theta/8 and half of theta'

@test_case(points=None, hidden=False)
def test_length_matters(stretch):
    import torch
    theta = 500000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    short, long = (stretch(theta, 8, 512), stretch(theta, 8, 8192))
    assert not torch.allclose(short, long), 'the borders depend on the length of the training texts'
    assert (long == theta).sum() > (short == theta).sum(), 'longer training texts mean more turns, so more pairs that stay'
    assert torch.allclose(stretch(theta, 1, 512), theta), 'factor 1 changes nothing'

@test_case(points=None, hidden=True)
def test_oracle(stretch):
    import torch
    from minillm.nn import llama3_scaling
    for p, base, length, factor in ((128, 500000.0, 8192, 8), (64, 10000.0, 2048, 3), (32, 10000.0, 128, 4)):
        theta = base ** (-torch.arange(0, p, 2, dtype=torch.float64) / p)
        right = llama3_scaling(theta, factor, length)
        gap = (stretch(theta, factor, length) / right - 1).abs().max().item()
        assert gap < 1e-09, f"differs from minillm's by a factor of up to {1 + gap:.4g}: mixed linearly in the turns, borders 1 and 4?"

