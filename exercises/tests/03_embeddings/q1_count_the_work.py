from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count_the_work"
points = 2

@test_case(points=None, hidden=False)
def test_predictions(skip_gram_predictions, cbow_predictions):
    right = sum((1 for i in range(5) for j in range(5) if 0 < abs(i - j) <= 2))
    assert skip_gram_predictions != 20, 'words at the ends of the sentence have fewer than four neighbors'
    assert (skip_gram_predictions, cbow_predictions) != (5, right), 'swapped: skip-gram predicts the context, CBOW the center'
    assert skip_gram_predictions != right // 2, 'each pair is met twice: every word is the center once'
    assert skip_gram_predictions == right, 'one prediction for every word of every context: count the neighbors of each word'
    assert cbow_predictions != right, 'CBOW predicts from the mean of the context: once for each center'
    assert cbow_predictions == 5, 'every word of the sentence is the center once'

@test_case(points=None, hidden=False)
def test_multiplications(multiplications):
    pairs = sum((1 for i in range(5) for j in range(5) if 0 < abs(i - j) <= 2))
    assert multiplications != pairs * 6 * 50, 'the true word is scored as well as the noise words'
    assert multiplications != pairs * 7, 'a dot product of two vectors of 50 numbers takes 50 multiplications'
    assert multiplications != 5 * 7 * 50, 'that is the work of CBOW: skip-gram draws noise for every pair'
    assert multiplications == pairs * 7 * 50, 'predictions x (1 true word + 6 noise words) x numbers in a vector'

