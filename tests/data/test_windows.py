"""Vocabulary, subsampling and windows against brute force and gensim."""

from collections import Counter

import pytest
import torch
from gensim.models import Word2Vec as GensimWord2Vec

from minillm.data.windows import (
    ContextWindows,
    count_words,
    encode_words,
    keep_probability,
    sentences,
    subsample,
)

STREAM = torch.tensor([4, 0, 1, -1, 2, -1, -1, 3, 0, 0, 1, 2, 4, 1, -1])


def test_sentences():
    text = "Don't stop. It is 3 o’clock!  The sea-side\n\nA new\npart"
    assert sentences(text) == [
        ["don't", "stop"],
        ["it", "is", "o’clock"],
        ["the", "sea", "side"],
        ["a", "new", "part"],
    ]


def test_vocabulary_and_stream():
    texts = [["b", "a", "b"], ["c", "b", "a"], ["d"]]
    words = count_words(texts, 2)
    assert words.words == ("b", "a") and words.counts.tolist() == [3, 2]
    assert "a" in words and "c" not in words and len(words) == 2
    assert encode_words(texts, words).tolist() == [0, 1, 0, -1, 0, 1, -1, -1]


def brute_force(stream, window):
    """Every center and what stands around it, with the centers told apart by their place."""
    stream = stream.tolist()
    found = Counter()
    for i, center in enumerate(stream):
        if center < 0:
            continue
        left, right = [], []
        for side, step in ((left, -1), (right, 1)):
            for j in range(1, window + 1):
                at = i + step * j
                if not 0 <= at < len(stream) or stream[at] < 0:
                    break
                side.append(stream[at])
        found[center, tuple(left[::-1] + right)] += 1
    return found


def as_seen(windows, batch_size=3):
    generator = torch.Generator().manual_seed(0)
    found = Counter()
    for centers, contexts in windows.batches(batch_size, generator):
        for center, row in zip(centers.tolist(), contexts.tolist(), strict=True):
            found[center, tuple(w for w in row if w >= 0)] += 1
    return found


@pytest.mark.parametrize("window", [1, 2, 3, 9])
def test_windows_are_all_there_and_stay_in_their_sentence(window):
    assert as_seen(ContextWindows(STREAM, window, shrink=False)) == brute_force(STREAM, window)


def test_crossing_a_sentence_would_show():
    crossing = STREAM[STREAM >= 0]
    assert brute_force(crossing, 2) != brute_force(STREAM, 2)


def test_near_words_count_more():
    stream = torch.arange(20000)
    windows = ContextWindows(stream, 4)
    places = torch.arange(10, 19990)
    context = windows.around(places, torch.Generator().manual_seed(1))
    share = (context >= 0).double().mean(0)
    expected = torch.tensor([1, 2, 3, 4, 4, 3, 2, 1]).double() / 4
    assert torch.allclose(share, expected, atol=0.02)
    assert torch.equal(context[:, 4], places + 1) and torch.equal(context[:, 3], places - 1)


def test_keep_probability_is_gensims():
    """gensim stores the threshold as a 32-bit whole number."""
    texts = [[f"w{i}"] * (3 * (i + 1) ** 3) for i in range(9)]
    words = count_words(texts, 1)
    oracle = GensimWord2Vec(texts, min_count=1, sample=0.01, vector_size=2, epochs=1, workers=1)
    theirs = torch.tensor(
        [oracle.wv.get_vecattr(w, "sample_int") / (2**32 - 1) for w in words.words]
    ).double()
    ours = keep_probability(words.counts, 0.01)
    assert (ours - theirs).abs().max() < 1e-6
    papers = (0.01 * words.counts.sum() / words.counts).sqrt().clamp(max=1)
    assert (papers - theirs).abs().max() > 1e-2


def test_subsampling_keeps_breaks_and_the_right_share():
    stream = torch.cat([torch.zeros(20000), torch.ones(20000), -torch.ones(10)]).long()
    kept = subsample(stream, torch.tensor([0.25, 1.0]), torch.Generator().manual_seed(0))
    assert (kept == -1).sum() == 10 and (kept == 1).sum() == 20000
    assert abs((kept == 0).sum().item() / 20000 - 0.25) < 0.015  # 5 standard deviations


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="window is 0"):
        ContextWindows(STREAM, 0)
    with pytest.raises(ValueError, match="no word"):
        ContextWindows(torch.tensor([-1, -1]), 2)
    with pytest.raises(ValueError, match="min_count"):
        count_words([["a"]], 0)
    with pytest.raises(ValueError, match="lower min_count"):
        count_words([["a", "b"]], 2)
    with pytest.raises(ValueError, match="threshold"):
        keep_probability(torch.tensor([1, 2]), 0.0)
