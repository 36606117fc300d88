from otter.test_files import test_case

OK_FORMAT = False

name = "q1_three_numbers"
points = 3

@test_case(points=None, hidden=False)
def test_n_parameters(n_parameters):
    from minillm.models.gpt import GPT, GPTConfig
    d, n = (320, n_parameters)
    model = GPT(GPTConfig(vocab_size=5000, max_seq_len=256, d_model=d, n_layers=10, n_heads=5))
    right = sum((parameter.numel() for parameter in model.parameters()))
    assert n != right + 5000 * d, 'the output layer is the token table: it is counted once'
    assert n not in (right - 256 * d, right - 5256 * d), 'the tables of token and position vectors are parameters too'
    assert n != right - 2 * d, 'GPT-2 has one more norm, after the last block'
    assert n != right - 10 * 9 * d, 'every linear layer has a bias: d each in attention (four of them), 4 d and d in the feed-forward layer'
    assert n != right - 10 * 4 * d, 'each block has two norms, with a scale and a shift of d numbers each'
    assert n != right - 10 * 13 * d - 2 * d, 'that is 12 d² a block and the tables: biases and norms are missing'
    assert n != right - 10 * d * d, 'attention has four matrices: queries, keys, values and the output'
    off = f'{max(0.1, 100 * abs(n - right) / right):.1f}%'
    assert n == right, f'your number is off by about {off}: sum matrices, biases, norms (scale and shift) and tables'

@test_case(points=None, hidden=False)
def test_first_loss(first_loss):
    from math import log, log2
    loss = float(first_loss)
    assert abs(loss - log2(5000)) > 0.1, 'that is in bits: a loss in nats uses the natural logarithm'
    assert loss > 0, 'the loss is minus the logarithm of a probability, so it is positive'
    assert loss > 0.001, 'that is a probability: a loss in nats is made from its logarithm'
    assert abs(loss - log(5000)) < 0.5, 'far off: how likely is the right token for a model that knows nothing?'
    assert abs(loss - log(5000)) < 0.0051, 'near, but not exact enough: work it out from the size of the vocabulary, do not measure it; round to two decimals, do not cut'

@test_case(points=None, hidden=False)
def test_bits_per_byte(bits_per_byte):
    from math import log
    bits, right = (float(bits_per_byte), 2.9 / log(2) / 4.15)
    assert abs(bits - 2.9 / 4.15) > 0.001, 'those are nats per byte: one nat is 1 / ln 2 = 1.44 bits'
    assert abs(bits - 2.9 * log(2) / 4.15) > 0.001, 'a bit is smaller than a nat, so there are more of them, not fewer'
    assert abs(bits - 2.9 / log(2)) > 0.001, 'those are bits per token: a token has 4.15 bytes'
    assert abs(bits - 4.15 * 2.9 / log(2)) > 0.001, 'upside down: the bits of a token are spread over its bytes'
    assert abs(bits - right) < 0.005, 'not right: two units change here, nats to bits and per token to per byte; look at each by itself'

