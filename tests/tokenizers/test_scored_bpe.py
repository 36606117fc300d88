import random

import pytest

from minillm.tokenizers.scored_bpe import ScoredBPE


def by_definition(text, scores):
    """Merge the best-scoring neighbors, leftmost among equals, until none is a piece."""
    parts = list(text)
    while True:
        pairs = [(scores.get(parts[i] + parts[i + 1]), -i) for i in range(len(parts) - 1)]
        pairs = [(score, i) for score, i in pairs if score is not None]
        if not pairs:
            return parts
        _, i = max(pairs)
        parts[-i : -i + 2] = [parts[-i] + parts[-i + 1]]


def random_vocabulary(draw, letters):
    texts = set(letters)
    while len(texts) < 30:
        texts.add(draw.choice(sorted(texts)) + draw.choice(sorted(texts)))
    return {text: -float(draw.randrange(6)) for text in sorted(texts)}  # many ties


@pytest.mark.parametrize("letters", ["abc", "ab▁"])
def test_merges_as_defined(letters):
    draw = random.Random(0)
    for _ in range(60):
        scores = random_vocabulary(draw, letters)
        model = ScoredBPE(scores)
        for _ in range(20):
            text = "".join(draw.choices(letters + "x", k=draw.randrange(15)))
            assert model.best(text) == by_definition(text, scores), (text, scores)


def test_words_apart_are_the_whole_text():
    scores = {"▁": -9.0, "a": -9.0, "b": -9.0, "▁a": -2.0, "ab": -1.0, "▁▁": -3.0, "▁ab": -4.0}
    model = ScoredBPE(scores)
    assert model._by_word and not ScoredBPE(scores | {"a▁": 0.0})._by_word
    draw = random.Random(1)
    for _ in range(500):
        text = "".join(draw.choices("ab▁", k=draw.randrange(12)))
        assert model.best(text) == by_definition(text, scores)


def test_long_runs_are_fast_enough():
    model = ScoredBPE({"a": 0.0, "aa": -1.0, "aaaa": -2.0})
    assert model.best("a" * 100_001) == ["aaaa"] * 25_000 + ["a"]
