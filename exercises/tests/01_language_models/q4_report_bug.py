from otter.test_files import test_case

OK_FORMAT = False

name = "q4_report_bug"
points = 2

@test_case(points=None, hidden=False)
def test_one_english_document(report):
    import math
    found = report([(math.log(8), 6, 'a text of 24 letters ...')])
    assert isinstance(found, dict) and {'perplexity', 'bits_per_byte'} <= set(found), 'return {"perplexity": ..., "bits_per_byte": ...}'
    assert abs(found['perplexity'] - 8) < 1e-09, 'a loss of ln 8 nats per token is a perplexity of 8: this was right before'
    assert abs(found['bits_per_byte'] - 18 / 24) < 1e-09, '6 tokens of 3 bits each over 24 bytes: this was right before'

@test_case(points=None, hidden=False)
def test_long_and_short(report):
    import math
    documents = [(2.0, 90, 'x' * 400), (6.0, 10, 'y' * 50)]
    found = report(documents)
    assert documents == [(2.0, 90, 'x' * 400), (6.0, 10, 'y' * 50)], 'the list you were given has changed: leave it as it is'
    p = found['perplexity']
    assert abs(p - math.exp(4.0)) > 1e-06, 'both documents count the same, though one has nine times the tokens of the other'
    assert abs(p - (math.exp(2) + math.exp(6)) / 2) > 1e-06, 'that is the mean of the perplexities: take the mean of the losses over all tokens first'
    assert abs(p - (0.9 * math.exp(2) + 0.1 * math.exp(6))) > 1e-06, 'a weighted mean of perplexities is no perplexity: the exponential comes last'
    assert abs(p - math.exp((2 * 400 + 6 * 50) / 450)) > 1e-06, 'you weighted by bytes: the losses are per token'
    assert abs(p - math.exp(2.4)) < 1e-09, '180 + 60 nats over 100 tokens: exp(2.4)'
    assert abs(found['bits_per_byte'] - 240 / math.log(2) / 450) < 1e-09, '240 nats are 240 / ln 2 bits, over 450 bytes'
    twice = report([(1.0, 10, 'z' * 40), (3.0, 10, 'z' * 40)])['perplexity']
    assert abs(twice - math.exp(2)) < 1e-09, 'two documents with the same text are two documents: both count'

@test_case(points=None, hidden=False)
def test_chinese(report):
    import math
    text = '语言模型'
    bits = report([(2.0, 4, text)])['bits_per_byte']
    assert abs(bits - 8 / math.log(2) / 4) > 1e-09, 'that is per character: these 4 characters take 12 bytes in UTF-8'
    assert abs(bits - 8 / math.log(2) / len(bytes(text, 'utf8'))) < 1e-09, 'divide by the bytes of the text in UTF-8'
    bits = report([(2.0, 4, 'naïve 模')])['bits_per_byte']
    assert abs(bits - 8 / math.log(2) / 10) < 1e-09, "a character takes 1 to 4 bytes ('ï' two, '模' three): encode the text, then count"

