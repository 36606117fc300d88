from otter.test_files import test_case

OK_FORMAT = False

name = "q4_stream_bug"
points = 3

@test_case(points=None, hidden=False)
def test_characters_are_whole(stream_text):
    tokens = [b'hi ', b'\xf0\x9f', b'\x8e', b'\x89', b' \xe4\xb8', b'\xad', b'!']
    pieces = list(stream_text(iter(tokens)))
    joined = ''.join(pieces)
    assert '�' not in joined, 'part of a character was shown: keep its bytes until the rest arrives'
    assert '🎉' in joined and '中' in joined, 'a character that is spread over tokens got lost: keep the bytes that are not one yet'
    assert joined == 'hi 🎉 中!', 'joined, the pieces must be the text, each character once'
    assert '' not in pieces, 'yield nothing when a token completes no character'

@test_case(points=None, hidden=False)
def test_as_soon_as_possible(stream_text):
    seen = []

    def model():
        for token in [b'one', b' two\xe4', b'\xb8\xad', b'.']:
            seen.append(token)
            yield token
    stream = stream_text(model())
    first = next(iter(stream))
    assert first == 'one' and len(seen) == 1, 'text that is certain must be shown at once, not at the end'
    second = next(stream)
    assert second == ' two' and len(seen) == 2, 'only the incomplete character waits: the characters before it in the same token are certain'

@test_case(points=None, hidden=False)
def test_ends_inside_a_character(stream_text):
    joined = ''.join(stream_text(iter([b'hi', b'\xf0\x9f'])))
    assert joined != 'hi', 'the tokens end inside a character: yield one "\\ufffd" for the rest'
    assert joined == 'hi�', f"one sign for the incomplete rest, not one for each byte: expected {'hi' + chr(65533)!r}, not {joined!r}"

@test_case(points=None, hidden=False)
def test_rare_text(stream_text):
    assert list(stream_text(iter([b'a\xef\xbf\xbd', b'b']))) == ['a�', 'b'], 'U+FFFD may stand in the text itself (bytes EF BF BD): then it is a whole character, to be shown like any other'
    assert ''.join(stream_text(iter([b'a', b'', b'b']))) == 'ab', 'a token may be empty: go on with the next one'
    assert ''.join(stream_text(iter(['\ufeffa'.encode()]))) == '\ufeffa', 'U+FEFF at the start is text as well: the codec utf-8-sig drops it'

