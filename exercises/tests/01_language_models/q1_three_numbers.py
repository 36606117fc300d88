from otter.test_files import test_case

OK_FORMAT = False

name = "q1_three_numbers"
points = 2

@test_case(points=None, hidden=False)
def test_perplexities(perplexity_4, perplexity_8):
    import math
    p = 1 / 2 * 1 / 8 * 1 / 4 * 1 / 16
    steps = (2, 8, 4, 16)
    for name, given, n in (('perplexity_4', perplexity_4, 4), ('perplexity_8', perplexity_8, 8)):
        assert isinstance(given, (int, float)) and math.isfinite(given), f'{name} is one Python number (`.item()` makes one of a tensor)'
        right = math.exp(-math.log(p) / n)
        assert given != p, f'{name} is the probability of the text: perplexity is its inverse, spread over the tokens'
        assert abs(given - sum(steps) / 4) > 1e-06, 'not the mean of the inverse probabilities: take the mean of the logarithms, then the exponential'
        assert abs(given - 10 / n) > 1e-06, f'{name} is in bits per token: raise 2 to that power'
        assert abs(given - math.exp(10 / n)) > 1e-06, 'bits belong to base 2: take 2 to the power of bits, or e to the power of nats'
        assert abs(given - 2 ** 10) > 1e-06, f'{name} is the inverse probability of the whole text: take the root for {n} tokens'
        assert abs(given - 1 / right) > 1e-06, f'{name} is below 1: perplexity is the inverse of the mean probability'
        assert abs(given - math.exp(-math.log(p) / (12 - n))) > 0.001, 'the two perplexities are exchanged, or equal: each is per token of its own tokenizer'
        assert abs(given - right) < 0.01, f'{name} should be the inverse of the geometric mean of {n} probabilities with product 1/1024'

@test_case(points=None, hidden=False)
def test_bits_per_byte(bits_per_byte):
    import math
    given = bits_per_byte
    assert isinstance(given, (int, float)) and math.isfinite(given), 'bits_per_byte is one Python number (`.item()` makes one of a tensor)'
    bits = sum((math.log2(n) for n in (2, 8, 4, 16)))
    assert abs(given - bits / 4) > 1e-06 and abs(given - bits / 8) > 1e-06, 'that is per token: divide by the 20 bytes of the text'
    assert abs(given - bits) > 1e-06, 'that is for the whole text: divide by its bytes'
    assert abs(given - bits / 160) > 1e-06, 'a byte of the *text* is one byte, not 8: divide by 20'
    assert abs(given - bits * math.log(2) / 20) > 1e-06, 'that is nats per byte: bits are nats divided by ln 2'
    assert abs(given - bits / 20) < 1e-06, "minus log2 of the text's probability, divided by the bytes of the text"

