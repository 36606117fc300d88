from otter.test_files import test_case

OK_FORMAT = False

name = "q5_bytes_per_token"
points = 3

@test_case(points=None, hidden=False)
def test_bytes(bytes_per_token):
    from minillm.tokenizers import ByteTokenizer, CharTokenizer
    ratio = bytes_per_token(ByteTokenizer(), ['naïve', '中文'])
    assert isinstance(ratio, float | int), 'return a number, bytes divided by tokens'
    assert abs(ratio - 1) < 1e-12, 'a byte tokenizer has exactly one byte per token: count bytes, not characters'
    characters = CharTokenizer.from_text('中文 ab')
    ratio = bytes_per_token(characters, ['中文'])
    assert abs(ratio - 1 / 3) > 1e-09, 'bytes per token, not tokens per byte'
    assert abs(ratio - 3) < 1e-12, 'each of these characters takes 3 bytes and is one token'

@test_case(points=None, hidden=False)
def test_weights(bytes_per_token):
    from minillm.tokenizers import CharTokenizer
    characters = CharTokenizer.from_text('中a')
    ratio = bytes_per_token(characters, ['中', 'a' * 9])
    assert abs(ratio - 2) > 1e-09, 'that is the mean of two ratios, 3 and 1: divide total bytes by total tokens'
    assert abs(ratio - 1.2) < 1e-12, '12 bytes in 10 tokens are 1.2 bytes per token'

@test_case(points=None, hidden=False)
def test_one_by_one(bytes_per_token):

    class Threes:

        def encode(self, text):
            return [0] * ((len(text) + 2) // 3)
    ratio = bytes_per_token(Threes(), ['abcd', 'abcd', 'abcd'])
    assert abs(ratio - 3) > 1e-09, 'encode the texts one by one: joined, a token runs across the border of two texts'
    assert min(abs(ratio - 14 / 5), abs(ratio - 12 / 5)) > 1e-09, 'encode the texts one by one: joined with a newline or a blank, the separators are counted and change the tokens'
    assert abs(ratio - 2) < 1e-12, 'each of the three texts has 4 bytes and 2 tokens: 12 bytes in 6 tokens'

@test_case(points=None, hidden=False)
def test_every_text_as_it_is(bytes_per_token):

    class Threes:

        def encode(self, text):
            return [0] * ((len(text) + 2) // 3)

    class Start:

        def encode(self, text):
            return [0, *text.encode()]
    texts = ['abcd', 'abcd', 'a']
    assert abs(bytes_per_token(Threes(), texts) - 9 / 5) < 1e-12, 'a text that comes twice counts twice: 9 bytes in 5 tokens'
    assert texts == ['abcd', 'abcd', 'a'], 'leave texts as it is'
    assert abs(bytes_per_token(Threes(), [' a b ']) - 5 / 2) < 1e-12, 'blanks at the ends are text, too: 5 bytes in 2 tokens'
    assert abs(bytes_per_token(Start(), ['ab', '']) - 2 / 4) < 1e-12, 'an empty text counts like any other: here it has 0 bytes and 1 token'

