from otter.test_files import test_case

OK_FORMAT = False

name = "q1_predict"
points = 2

@test_case(points=None, hidden=False)
def test_score(score):
    import cmath
    import math
    query, key = (2 * cmath.exp(1j * math.radians(7 * 60)), 3 * cmath.exp(1j * math.radians(5 * 60)))
    right = (query * key.conjugate()).real
    assert abs(score + right) > 1e-06, 'the cosine of 120 degrees is negative: they point away from each other'
    assert abs(score - 6) > 1e-06, 'that is the score without turning'
    assert abs(score - math.cos(math.radians(120))) > 1e-06, 'the lengths 2 and 3 count, too'
    assert abs(score - 6 * math.cos(120)) > 1e-06, 'that is the cosine of 120 radians: the angle is in degrees'
    assert abs(score - right) < 1e-06, 'length of the query times length of the key times the cosine of the angle between them'

@test_case(points=None, hidden=False)
def test_turns(turns):
    import math
    speed = 10000 ** (-0.5)
    right = 2048 * speed / (2 * math.pi)
    assert abs(turns - 2048 * speed) > 0.05, 'that is the angle in radians: a full turn has 2 pi of them'
    assert abs(turns - 2048 * speed / 360) > 0.005, 'frequencies are in radians, not in degrees: a full turn is 2 pi'
    assert abs(turns - 2048 * 10000 ** (-16 / 64) / (2 * math.pi)) > 0.05, 'the exponent is -2i/p with i the number of the pair'
    assert abs(turns - 2048 * 10000 ** 0.5 / (2 * math.pi)) > 1, 'mind the sign of the exponent: later pairs turn more slowly'
    assert abs(turns - right) < 0.01, 'tokens times radians per token, divided by 2 pi'

@test_case(points=None, hidden=False)
def test_parameters(learned, biases):
    assert learned not in (1024, 768, 1024 + 768), 'one row of 768 numbers for each of the 1,024 positions'
    assert learned == sum((768 for position in range(1024))), 'rows times width; added once, not in every layer'
    assert biases != 32, 'each head has biases of its own'
    assert biases != 32 * 12 * 12, 'T5 makes the bias once, and all layers share it'
    assert biases == sum((1 for bucket in range(32) for head in range(12))), 'one number per bucket and head'

