from otter.test_files import test_case

OK_FORMAT = False

name = "q6_digits_from_the_right"
points = 4

@test_case(points=None, hidden=False)
def test_groups(digits_pattern):
    from minillm.tokenizers.patterns import Splitter
    assert isinstance(digits_pattern, str), 'digits_pattern must be a string, the regular expression'
    split = Splitter([digits_pattern])
    assert split('1234567') != ['123', '456', '7'], 'these are groups from the left: a group must be followed by a multiple of three digits'
    assert split('1234567') != ['1234567'], 'a group has at most three digits'
    for text, right in [('1234567', ['1', '234', '567']), ('12345', ['12', '345']), ('100', ['100']), ('7', ['7'])]:
        assert split(text) == right, f'{text} must be cut into {right}, not {split(text)}'

@test_case(points=None, hidden=False)
def test_surroundings(digits_pattern):
    from minillm.tokenizers.patterns import Splitter
    split = Splitter([digits_pattern])
    assert split('12345 km')[:2] == ['12', '345'], 'a run also ends before a blank or a sign: `$` holds at the end of the whole text only'
    assert split('12345km')[:2] == ['12', '345'], 'a run also ends before a letter: `\\b` sees no border between a digit and a letter'
    assert split('in 1234 days') == ['in', ' ', '1', '234', ' days'], 'a blank does not join the digits behind it, and letters end a run'
    assert split('a1b22222c') == ['a', '1', 'b', '22', '222', 'c'], 'each run of digits is grouped for itself'
    assert split('1,234.5678') == ['1', ',', '234', '.', '5', '678'], 'signs end a run: what follows them is grouped for itself'
    assert split('٣٤٥٦') == ['٣', '٤٥٦'], '\\p{N} knows the digits of all scripts; \\d or [0-9] would not do for ½ or Ⅷ'
    assert split('½½½½') == ['½', '½½½'], '½ is a number (\\p{N}) but no digit (\\d)'
    assert split('-12345+98765') == ['-', '12', '345', '+', '98', '765'], 'a sign does not join the digits behind it'
    assert split('2' * 20) == ['22', *['222'] * 6], 'every run is grouped, however long: here 20 digits'

@test_case(points=None, hidden=False)
def test_matches_every_character(digits_pattern):
    from minillm.tokenizers.patterns import regex
    for text in ('1234567', '12345 km', 'in 1234 days\n\n', '7'):
        found = regex.findall(digits_pattern, text)
        assert ''.join(found) == text, f'in {text!r} the pattern matches only {found}: other tools lose the rest. After the last group of a run no further digits follow: allow none, and let the group have fewer than three digits'

