"""Masks and sentence pairs: shares by χ² over more than 10⁵ tokens, and what must never happen."""

import pytest
import torch
from scipy.stats import binomtest, chisquare

from minillm.data.masking import (
    MaskedPairs,
    NextSentencePairs,
    choose_exactly,
    choose_tokens,
    choose_words,
    cut_pair,
    join_pair,
    mask_tokens,
    word_numbers,
)

V, MASK, CLS, SEP, PAD = 997, 4, 2, 3, 0


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def masked(n=1_000, t=128, **options):
    tokens = torch.randint(5, V, (n, t), generator=generator(1))
    maskable = torch.ones_like(tokens).bool()
    maskable[:, 0] = maskable[:, -1] = False
    chosen = choose_tokens(maskable, generator=generator(2))
    inputs, targets = mask_tokens(
        tokens, chosen, mask_id=MASK, vocab_size=V, generator=generator(3), **options
    )
    return tokens, maskable, chosen, inputs, targets


def fates(tokens, chosen, inputs):
    """How many chosen tokens became [MASK], became another token, stayed."""
    gone = inputs[chosen] == MASK
    kept = inputs[chosen] == tokens[chosen]
    return [int(gone.sum()), int((~gone & ~kept).sum()), int(kept.sum())]


def expected_fates(n):
    """A random token is the old one in 1 of V cases, and [MASK] in 1 of V."""
    shares = [0.8 + 0.1 / V, 0.1 * (1 - 2 / V), 0.1 + 0.1 / V]
    return [n * share for share in shares]


def test_of_the_chosen_80_10_10_by_chi_square():
    tokens, maskable, chosen, inputs, _ = masked()
    n = int(chosen.sum())
    assert maskable.sum() > 100_000
    assert binomtest(n, int(maskable.sum()), 0.15).pvalue > 1e-3
    assert chisquare(fates(tokens, chosen, inputs), expected_fates(n)).pvalue > 1e-3


WRONG = {
    "all_masked": {"masked": 1.0, "random": 0.0},
    "80_20_0": {"masked": 0.8, "random": 0.2},
    "80_0_20": {"masked": 0.8, "random": 0.0},
    "75_12_12": {"masked": 0.75, "random": 0.125},
    "10_of_the_remaining_20": {"masked": 0.8, "random": 0.02},
}


@pytest.mark.parametrize("name", WRONG)
def test_chi_square_rejects_wrong_shares(name):
    tokens, _, chosen, inputs, _ = masked(**WRONG[name])
    counts = fates(tokens, chosen, inputs)
    assert chisquare(counts, expected_fates(int(chosen.sum()))).pvalue < 1e-6


def test_random_tokens_are_uniform():
    tokens, _, chosen, inputs, _ = masked(n=4_000, masked=0.0, random=1.0)
    counts = torch.bincount(inputs[chosen], minlength=V)
    assert len(counts) == V
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_nothing_but_chosen_tokens_changes_and_only_they_are_targets():
    tokens, maskable, chosen, inputs, targets = masked()
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    assert (targets[~chosen] == -100).all()
    assert torch.equal(targets[chosen], tokens[chosen]), "kept tokens are targets, too"
    assert not (chosen & ~maskable).any()


def test_exactly_15_percent_of_every_row_at_least_one():
    maskable = torch.rand(200, 60, generator=generator(5)) < 0.9
    maskable[0] = False
    maskable[1, 1:], maskable[1, 0] = False, True
    chosen = choose_exactly(maskable, generator=generator())
    assert not (chosen & ~maskable).any()
    wanted = (0.15 * maskable.sum(1)).round().clamp(min=1).minimum(maskable.sum(1))
    assert torch.equal(chosen.sum(1).float(), wanted)
    often = torch.stack([choose_exactly(maskable, generator=generator(i)) for i in range(300)])
    places = often.float().mean(0)[maskable & (maskable.sum(1, keepdim=True) > 40)]
    assert places.min() > 0.05, "every place must have its chance"
    assert places.max() < 0.3, "and none be preferred"


def test_whole_words_are_chosen_whole_and_at_the_right_rate():
    continues = torch.zeros(V, dtype=torch.bool)
    continues[500:] = True
    tokens = torch.randint(5, V, (1_000, 64), generator=generator(1))
    words = word_numbers(tokens, continues)
    chosen = choose_words(words, torch.ones_like(tokens).bool(), generator=generator(2))
    same_word = words[:, 1:] == words[:, :-1]
    assert torch.equal(chosen[:, 1:][same_word], chosen[:, :-1][same_word])
    assert (words[:, 1:] - words[:, :-1] <= 1).all()
    assert abs(chosen.float().mean().item() - 0.15) < 0.01
    alone = choose_tokens(torch.ones_like(tokens).bool(), generator=generator(2))
    assert not torch.equal(alone[:, 1:][same_word], alone[:, :-1][same_word])


# --- sentence pairs -----------------------------------------------------------------------------


def library(n=30):
    """Documents whose sentences can be told: token = 10 + 100 · document + sentence."""
    sizes = torch.randint(1, 40, (n,), generator=generator(7)).tolist()
    return [[[10 + 100 * d + s] * (1 + s % 4) for s in range(size)] for d, size in enumerate(sizes)]


def pairs(max_len=24, batch_size=8, seed=0):
    ids = {"cls_id": CLS, "sep_id": SEP, "pad_id": PAD}
    return NextSentencePairs(library(), max_len, batch_size, seed=seed, **ids)


def pieces(row):
    """The two pieces of a row of ids, from its [SEP]s."""
    first = row.tolist().index(SEP)
    second = row.tolist().index(SEP, first + 1)
    return row[1:first].tolist(), row[first + 1 : second].tolist()


def test_next_follows_and_random_comes_from_another_document():
    random = 0
    for _, batch in zip(range(120), pairs(), strict=False):
        for row, label in zip(batch.tokens, batch.is_random.tolist(), strict=True):
            first, second = pieces(row)
            assert first
            assert second
            documents = {(x - 10) // 100 for x in first}, {(x - 10) // 100 for x in second}
            assert all(len(d) == 1 for d in documents)
            random += label
            if label:
                assert documents[0] != documents[1], "a random piece from the same document"
            else:
                assert documents[0] == documents[1]
                assert second[0] - first[-1] >= 0, "the second piece lies before the first"
                assert second[0] - first[-1] <= 1, "there is a gap"
    assert binomtest(random, 960, 0.5).pvalue > 1e-3


def test_rows_are_laid_out_as_bert_reads_them():
    for _, batch in zip(range(40), pairs(), strict=False):
        for row, kinds, mask in zip(
            batch.tokens, batch.segments, batch.attention_mask, strict=True
        ):
            first, second = pieces(row)
            ids, segments = join_pair(first, second, cls_id=CLS, sep_id=SEP)
            n = len(ids)
            assert n <= 24
            assert row[:n].tolist() == ids
            assert kinds[:n].tolist() == segments
            assert segments == [0] * (len(first) + 2) + [1] * (len(second) + 1)
            assert (row[n:] == PAD).all()
            assert (kinds[n:] == 0).all()
            assert mask.tolist() == [True] * n + [False] * (24 - n)


def test_batches_are_functions_of_seed_and_index():
    for a, b in zip(pairs()[5], pairs()[5], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(pairs()[5].tokens, pairs()[6].tokens)
    assert not torch.equal(pairs()[5].tokens, pairs(seed=1)[5].tokens)


def test_cutting_takes_from_the_longer_piece():
    assert cut_pair([1, 2, 3, 4, 5], [6, 7, 8], 5) == ([4, 5], [6, 7, 8])
    assert cut_pair([1, 2, 3, 4], [5, 6, 7, 8], 4) == ([3, 4], [5, 6])
    assert cut_pair([1], [2], 5) == ([1], [2])


def test_masked_pairs_never_touch_specials_and_change_from_batch_to_batch():
    plain = pairs(max_len=40, batch_size=16)
    batches = MaskedPairs(
        plain, mask_id=MASK, vocab_size=9_000, special_ids=[PAD, CLS, SEP, MASK], seed=3
    )
    share = []
    for i in range(60):
        batch, pair = batches[i], plain[i]
        chosen = batch.targets != -100
        special = torch.isin(pair.tokens, torch.tensor([PAD, CLS, SEP, MASK]))
        assert not (chosen & special).any(), "a special token was masked"
        assert torch.equal(batch.targets[chosen], pair.tokens[chosen])
        assert torch.equal(batch.tokens[~chosen], pair.tokens[~chosen])
        assert chosen.any(1).all()
        share.append(chosen.sum() / (~special).sum())
    assert abs(torch.stack(share).mean() - 0.15) < 0.02
    assert torch.equal(batches[7].tokens, batches[7].tokens)
    same = MaskedPairs([plain[0]] * 2, mask_id=MASK, vocab_size=9_000, special_ids=[PAD, CLS, SEP])
    assert not torch.equal(same[0].tokens, same[1].tokens), "the same text, masked anew"


ONE = torch.ones(1, 2).long()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: choose_tokens(ONE.bool(), 15.0), "15.0"),
        (lambda: NextSentencePairs([[[7], [8]]], 9, 1, cls_id=2, sep_id=3), "two documents"),
        (lambda: NextSentencePairs([[[7]], [[8]]], 9, 1, cls_id=2, sep_id=3), "two sentences"),
        (lambda: pairs()[-1], "numbered from 0"),
        (lambda: cut_pair([1], [2], 1), "budget is 1"),
        (lambda: mask_tokens(ONE, ONE.bool(), mask_id=9, vocab_size=9), "mask_id 9"),
        (lambda: mask_tokens(ONE, ONE.bool(), mask_id=1, vocab_size=9, masked=0.95), "0.95"),
    ],
)
def test_bad_input_is_told(call, words):
    with pytest.raises((ValueError, IndexError), match=words):
        call()
