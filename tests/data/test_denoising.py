"""Denoising objectives against brute-force definitions, their densities, and their inverses."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.denoising import (
    corrupt_spans,
    delete_tokens,
    infill,
    mask_tokens,
    permute_sentences,
    refill,
    restore,
    rotate,
    span_counts,
    span_mask,
)

SENTINELS = list(range(200, 100, -1))
MASK = 99


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def text(n):
    return torch.randint(0, 60, (n,), generator=generator(n))


def runs(mask):
    """(value, length) of every run."""
    cuts = [0, *(i for i in range(1, len(mask)) if mask[i] != mask[i - 1]), len(mask)]
    return [(bool(mask[a]), b - a) for a, b in zip(cuts, cuts[1:], strict=False)]


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(2, 130),
    density=st.floats(0.02, 0.95),
    mean=st.floats(1, 9),
    seed=st.integers(0, 99),
)
def test_span_mask_has_exact_density_and_number_of_spans(n, density, mean, seed):
    mask = span_mask(n, generator(seed), density=density, mean_length=mean)
    n_noise, n_spans = span_counts(n, density=density, mean_length=mean)
    assert mask.sum() == n_noise == min(max(round(n * density), 1), n - 1)
    found = runs(mask)
    assert [value for value, _ in found] == [False, True] * n_spans
    wanted = max(round(n_noise / mean), 1)
    assert n_spans == min(wanted, n_noise, n - n_noise)


def test_every_mask_is_equally_likely():
    """8 tokens, 4 taken out in 2 spans: 3 ways to cut the spans, 3 to cut the rest."""
    every = set()
    for a in range(1, 4):
        for b in range(1, 4):
            every.add((0,) * b + (1,) * a + (0,) * (4 - b) + (1,) * (4 - a))
    source = generator(1)
    drawn = Counter(
        tuple(span_mask(8, source, density=0.5, mean_length=2).int().tolist()) for _ in range(900)
    )
    assert set(drawn) == every
    chi2 = sum((n - 100) ** 2 / 100 for n in drawn.values())
    assert chi2 < 26.1, "the 0.1% point of χ² with 8 degrees of freedom"


def test_papers_example():
    """Figure 2: "Thank you for inviting me to your party last week"."""
    ids = torch.arange(11)
    mask = torch.zeros(11, dtype=torch.bool)
    mask[[2, 3, 8]] = True
    source, target = corrupt_spans(ids, mask, SENTINELS)
    x, y, z = SENTINELS[:3]
    assert source.tolist() == [0, 1, x, 4, 5, 6, 7, y, 9, 10]
    assert target.tolist() == [x, 2, 3, y, 8, z]


def test_recommended_lengths():
    """T5 reads 512 tokens: 568 of text are 483 kept, 28 sentinels and the end; the target 114."""
    n_noise, n_spans = span_counts(568)
    assert (n_noise, n_spans) == (85, 28)
    assert 568 - n_noise + n_spans + 1 == 512
    assert n_noise + n_spans + 1 == 114


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 90), density=st.floats(0.02, 0.9), seed=st.integers(0, 99))
def test_span_corruption_inverts(n, density, seed):
    tokens = text(n)
    mask = span_mask(n, generator(seed), density=density)
    source, target = corrupt_spans(tokens, mask, SENTINELS)
    n_noise, n_spans = span_counts(n, density=density)
    assert len(source) == n - n_noise + n_spans
    assert len(target) == n_noise + n_spans + 1
    assert torch.equal(restore(source, target, SENTINELS), tokens)


@pytest.mark.parametrize("bits", ["0000", "1111", "1000", "0110", "1011", "0101"])
def test_masks_that_begin_or_end_anywhere(bits):
    mask = torch.tensor([b == "1" for b in bits])
    tokens = torch.tensor([5, 6, 7, 8])
    source, target = corrupt_spans(tokens, mask, SENTINELS)
    assert torch.equal(restore(source, target, SENTINELS), tokens)
    spans = sum(value for value, _ in runs(mask))
    assert [t for t in target.tolist() if t > 100] == SENTINELS[: spans + 1]


def test_a_models_answer_may_be_odd():
    source = torch.tensor([5, 200, 6, 199])
    assert restore(source, torch.tensor([8, 200, 7, 7]), SENTINELS).tolist() == [5, 7, 7, 6, 199]
    assert restore(source, torch.tensor([199, 9, 150, 3]), SENTINELS).tolist() == [5, 200, 6, 9]


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 90), ratio=st.floats(0.05, 0.9), seed=st.integers(0, 99))
def test_infilling_takes_out_an_exact_share_and_inverts(n, ratio, seed):
    tokens = text(n)
    damaged, spans = infill(tokens, MASK, generator(seed), ratio=ratio)
    assert sum(map(len, spans)) == round(ratio * n)
    assert int((damaged == MASK).sum()) == len(spans)
    assert len(damaged) == n - round(ratio * n) + len(spans)
    assert torch.equal(refill(damaged, spans, MASK), tokens)


def test_lengths_of_infilling_are_poisson():
    """All but the last length of a text, which is cut to fit, follow Poisson(3); χ² over 0 … 8."""
    source = generator(3)
    drawn = Counter()
    for _ in range(20):
        _, spans = infill(torch.arange(2700), MASK, source, ratio=0.3)
        drawn.update(len(span) for span in spans)
    total = sum(drawn.values())
    chi2, p = 0.0, torch.exp(torch.tensor(-3.0)).item()
    for k in range(9):
        chi2 += (drawn[k] - total * p) ** 2 / (total * p)
        p *= 3 / (k + 1)
    assert total > 4000
    assert chi2 < 26.1 + 5, "cutting the last of 270 lengths moves the counts a little"
    assert drawn[0] > 0, "some masks stand where nothing is missing"


def test_places_of_infilling_are_uniform():
    """One span of 1 among 5 tokens: any of 5 places, equally often."""
    source, places = generator(4), Counter()
    while sum(places.values()) < 1000:
        damaged, spans = infill(torch.arange(5), MASK, source, ratio=0.2)
        if len(spans) == 1:
            places[damaged.tolist().index(MASK)] += 1
    assert sum((places[i] - 200) ** 2 / 200 for i in range(5)) < 18.5


def test_masking_and_deletion_by_token():
    tokens = torch.arange(20_000) % 90
    masked = mask_tokens(tokens, MASK, generator(), p=0.3)
    hidden = masked == MASK
    assert torch.equal(masked[~hidden], tokens[~hidden])
    assert abs(hidden.float().mean() - 0.3) < 4 * (0.21 / 20_000) ** 0.5
    left = delete_tokens(tokens, generator(), p=0.3)
    assert torch.equal(left, tokens[~hidden]), "the same draws, but nothing shows where"


def test_sentences_are_permuted_whole():
    tokens = torch.tensor([1, 2, 0, 3, 0, 4, 5, 6, 90, 7])  # ends: 0 and 90; the last has none
    sentences = {(1, 2, 0), (3, 0), (4, 5, 6, 90), (7,)}
    seen = set()
    for seed in range(200):
        out = permute_sentences(tokens, [0, 90], generator(seed)).tolist()
        at, order = 0, []
        while at < len(out):
            found = [s for s in sentences if tuple(out[at : at + len(s)]) == s]
            assert len(found) == 1
            order += found
            at += len(found[0])
        assert set(order) == sentences
        seen.add(tuple(order))
    assert len(seen) == 24, "every order occurs"


def test_rotation():
    tokens = torch.arange(7)
    seen = {tuple(rotate(tokens, generator(seed)).tolist()) for seed in range(80)}
    assert seen == {(*range(k, 7), *range(k)) for k in range(7)}


def test_a_generator_fixes_the_noise():
    a, b = (infill(text(50), MASK, generator(7))[0] for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, infill(text(50), MASK, generator(8))[0])


# --- named wrong versions: the checks above must reject each of them ---------------------------


def one_sentinel_a_token(tokens, mask):
    """A sentinel for every token: BERT's masking with other names."""
    source, target, number = [], [], 0
    for token, taken in zip(tokens.tolist(), mask.tolist(), strict=True):
        if taken:
            source.append(SENTINELS[number])
            target += [SENTINELS[number], token]
            number += 1
        else:
            source.append(token)
    return torch.tensor(source), torch.tensor([*target, SENTINELS[number]])


def same_sentinel_for_all(tokens, mask):
    source, target = corrupt_spans(tokens, mask, SENTINELS)
    return source.clamp(max=SENTINELS[-1]), target.clamp(max=SENTINELS[-1])


def whole_text_as_target(tokens, mask):
    return corrupt_spans(tokens, mask, SENTINELS)[0], tokens


@pytest.mark.parametrize(
    "wrong", [one_sentinel_a_token, same_sentinel_for_all, whole_text_as_target]
)
def test_wrong_corruption_is_rejected(wrong):
    tokens, mask = text(40), span_mask(40, generator(2))
    n_noise, n_spans = span_counts(40)
    source, target = wrong(tokens, mask)
    lengths_fit = len(source) == 40 - n_noise + n_spans and len(target) == n_noise + n_spans + 1
    inverts = torch.equal(restore(source, target, SENTINELS), tokens)
    assert not (lengths_fit and inverts)


def test_independent_coins_are_rejected():
    """Tokens taken out one by one have neither an exact density nor spans of the mean length."""
    masks = [torch.rand(100, generator=generator(seed)) < 0.15 for seed in range(20)]
    assert any(mask.sum() != span_counts(100)[0] for mask in masks)


def test_all_subsets_of_slots_occur():
    seen = set()
    for seed in range(400):
        damaged, spans = infill(torch.arange(4), MASK, generator(seed), ratio=0.5, mean_length=1)
        if len(spans) == 2 and all(len(s) == 1 for s in spans):
            seen.add(tuple((damaged == MASK).nonzero().flatten().tolist()))
    assert seen == set(combinations(range(4), 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: span_mask(1, generator()), "at least 2"),
        (lambda: span_mask(9, generator(), density=1.5), r"density 1\.5"),
        (lambda: span_mask(9, generator(), mean_length=0.5), r"mean_length 0\.5"),
        (lambda: corrupt_spans(text(5), torch.ones(4).bool(), SENTINELS), "must match|Type-check"),
        (lambda: corrupt_spans(text(2), torch.tensor([True, False]), [200]), "2 sentinels"),
        (lambda: corrupt_spans(torch.tensor([200]), torch.tensor([True]), SENTINELS), "sentinel"),
        (lambda: infill(text(5), MASK, generator(), ratio=1.0), "ratio"),
        (lambda: refill(torch.tensor([MASK]), [], MASK), "1 masks and 0 spans"),
        (lambda: mask_tokens(text(5), MASK, generator(), p=1.5), r"p is 1\.5"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(Exception, match=message):
        call()
