from otter.test_files import test_case

OK_FORMAT = False

name = "q3_best_cut"
points = 4

@test_case(points=None, hidden=False)
def test_small(best_cut):
    log_p = {'un': -2.5, 'unh': -6.9, 'happy': -3.0, 'hap': -4.6, 'py': -3.9, 'ha': -3.9, 'ppy': -5.5}
    log_p = {**log_p, **dict.fromkeys('unhapy', -5.3)}
    got = best_cut('unhappy', log_p)
    assert isinstance(got, list), 'return a list of pieces'
    assert ''.join(got) == 'unhappy', 'the pieces joined must be the word, in the order of the word'
    assert got != list('unhappy'), 'single letters cost -5.3 each: larger sums (nearer to zero) are better, not smaller ones'
    assert got[0] != 'unh', 'not the longest piece first: `unh` is long and improbable'
    assert got == ['un', 'happy'], 'un + happy has -2.5 - 3.0 = -5.5, more than any other cut'

@test_case(points=None, hidden=False)
def test_greedy_is_not_enough(best_cut):
    trap = {'a': -1.0, 'b': -9.0, 'ab': -8.0, 'bc': -1.5, 'c': -9.0, 'abc': -4.0}
    assert best_cut('abc', trap) == ['a', 'bc'], 'a + bc has -2.5; the longest piece abc has -4.0: compare whole cuts, not pieces'
    rest = {'a': -1.0, 'ab': -2.0, 'bbb': -1.0, 'b': -7.0}
    got = best_cut('abbb', rest)
    assert got != ['ab', 'b', 'b'], 'ab leaves a bad rest: the best cut is not found from the left, one piece at a time'
    assert got == ['a', 'bbb'], 'a + bbb has -2.0'
    few = {'x': -3.0, 'y': -3.0, 'xy': -7.0}
    assert best_cut('xy', few) == ['x', 'y'], 'x + y has -6.0, xy has -7.0: more pieces may be more probable'

@test_case(points=None, hidden=False)
def test_edges(best_cut):
    assert best_cut('', {'a': -1.0}) == [], 'the empty word has the empty cut'
    assert best_cut('ab', {'a': -1.0}) is None, 'no piece for b: return None'
    assert best_cut('ab', {'ab': -1.0}) == ['ab'], 'the word itself may be a piece'
    dead_end = {'ab': -0.1, 'a': -5.0, 'bc': -5.0}
    assert best_cut('abc', dead_end) == ['a', 'bc'], 'ab is a dead end, as c is no piece: a place that no cut reaches has the score minus infinity'
    assert best_cut('aaa', {'a': 0.0}) == ['a', 'a', 'a'], 'a log-probability of 0 (probability 1) is a score like any other, not `no piece`'

@test_case(points=None, hidden=False)
def test_long(best_cut):

    class Counted(dict):
        """A dictionary that can be asked 100,000 times: many times what a table asks."""
        asked = 0

        def ask(self):
            self.asked += 1
            assert self.asked < 100000, '120 letters have far too many cuts to list: fill a table from left to right'

        def __getitem__(self, key):
            self.ask()
            return super().__getitem__(key)

        def __contains__(self, key):
            self.ask()
            return super().__contains__(key)

        def get(self, key, default=None):
            self.ask()
            return super().get(key, default)
    small = Counted({'a': -8.0, 'b': -9.0, 'ab': -15.0})
    assert best_cut('ab' * 60, small) == ['ab'] * 60, 'add logarithms and compare the sums: the product of 60 probabilities of e**-15 is 0 in floating point'
    whole = 'ab' * 12
    assert best_cut('z' + whole, {'z': -1.0, 'a': -2.0, 'b': -2.0, whole: -3.0}) == ['z', whole], 'a piece may have any length, here 24 letters'

