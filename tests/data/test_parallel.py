import itertools
from collections import Counter

import pytest
import torch

from minillm.data.parallel import PairBatches, SentencePair, pad_right, split_pairs, zh_en_pairs


def test_the_real_pairs():
    pairs = zh_en_pairs()
    assert len(pairs) == 4272
    assert pairs[1].chinese == "你好，很高兴认识你。"
    assert pairs[1].english == "Hello, nice to meet you."
    assert pairs[1].words[3] == ("高兴", "gāo xìng")
    assert Counter(pair.level for pair in pairs)[1] == 281
    assert all(pair.chinese.strip() and pair.english.strip() for pair in pairs)
    assert not any("placeholder" in pair.english for pair in pairs)
    assert all(len(pair.english.split()) > 1 or pair.english[-1] in ".!?" for pair in pairs)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_sentence_is_on_both_sides_of_the_split(seed):
    pairs = zh_en_pairs()
    training, held_out = split_pairs(pairs, 400, seed)
    assert 400 <= len(held_out) < 410
    assert len(training) + len(held_out) == len(pairs)
    for side in (lambda p: p.chinese, lambda p: p.english.casefold()):
        assert not {side(p) for p in training} & {side(p) for p in held_out}
    assert (training, held_out) == split_pairs(pairs, 400, seed)
    assert held_out != split_pairs(pairs, 400, seed + 1)[1]


def test_a_split_by_pairs_would_leak():
    """The named wrong version: drawing pairs, not groups, puts sentences on both sides."""
    import random

    pairs = zh_en_pairs()
    random.Random(0).shuffle(pairs)
    held_out, training = pairs[:400], pairs[400:]
    assert {p.english for p in training} & {p.english for p in held_out}


def test_chains_of_shared_sentences_stay_together():
    chain = [SentencePair("a", "x"), SentencePair("b", "X"), SentencePair("b", "y")]
    others = [SentencePair(str(i), f"e{i}") for i in range(9)]
    for seed in range(20):
        training, _ = split_pairs([*chain, *others], 4, seed)
        assert len({pair in training for pair in chain}) == 1


def batches(n=23, batch_size=5, **options):
    sources = [[10 + i] * (1 + i % 7) for i in range(n)]
    targets = [[100 + i] * (1 + i % 4) for i in range(n)]
    return PairBatches(sources, targets, batch_size, start_id=1, eos_id=2, pad_id=0, **options)


@pytest.mark.parametrize("bucket", [1, 2, 9])
def test_every_pair_once_an_epoch_whatever_the_bucket(bucket):
    found = batches(25, bucket=bucket)
    for epoch in range(3):
        seen = [int(row[0]) - 10 for i in range(5) for row in found[epoch * 5 + i][0]]
        assert sorted(seen) == list(range(25))
    assert found.batches_per_epoch == 5
    first, again, other = found[3], batches(25, bucket=bucket)[3], batches(25, seed=1)[3]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][:, 0], other[0][:, 0])


def test_what_a_batch_holds():
    for source, mask, inputs, targets in (batches()[i] for i in range(10)):
        for s, m, x, y in zip(source, mask, inputs, targets, strict=True):
            i = int(s[0]) - 10
            n, t = 1 + i % 7, 1 + i % 4
            assert s[m].tolist() == [10 + i] * n + [2]
            assert not s[~m].any()
            assert not m[n + 1 :].any()
            assert x[: t + 1].tolist() == [1] + [100 + i] * t
            assert y[: t + 1].tolist() == [100 + i] * t + [2]
            assert (y[t + 1 :] == -100).all()
            assert not x[t + 1 :].any()


def test_buckets_save_padding():
    def share(bucket):
        found = batches(400, 8, bucket=bucket)
        masks = [found[i][1] for i in range(50)]
        return sum(int((~m).sum()) for m in masks) / sum(m.numel() for m in masks)

    assert share(10) < 0.6 * share(1)


def test_pad_right():
    ids, mask = pad_right([[5], [6, 7, 8]], 9)
    assert ids.tolist() == [[5, 9, 9], [6, 7, 8]]
    assert mask.tolist() == [[True, False, False], [True] * 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_pairs([SentencePair("a", "b")], 1), "n_held_out is 1"),
        (lambda: PairBatches([[1]], [], 2, start_id=1, eos_id=2, pad_id=0), "1 sources and 0"),
        (lambda: batches(batch_size=0), "batch_size is 0"),
        (lambda: batches(bucket=0), "bucket is 0"),
        (lambda: pad_right([[1], []], 0), "at least one id"),
        (lambda: batches()[-1], "does not exist"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises((ValueError, IndexError), match=message):
        call()


def test_batches_differ_from_epoch_to_epoch():
    found = batches(25)
    orders = [tuple(int(r[0]) for i in range(5) for r in found[5 * e + i][0]) for e in range(4)]
    assert all(a != b for a, b in itertools.pairwise(orders))
