"""Blank infilling: what is cut, where it is written, and that nothing is lost."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.data.blank_infilling import (
    BlankBatches,
    BlankTokens,
    blank_out,
    document_span,
    restore,
    sentence_spans,
    token_spans,
)
from minillm.nn import block_positions

SPECIAL = BlankTokens(mask=100, start=101, end=102, pad=103)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_example_of_the_paper():
    """Figure 2: x3 and x5 x6 are cut, the second is written first."""
    one = blank_out([1, 2, 3, 4, 5, 6], [(2, 3), (4, 6)], SPECIAL, order=[1, 0])
    assert one.tokens.tolist() == [1, 2, 100, 4, 100, 101, 5, 6, 101, 3]
    assert one.targets.tolist() == [-100] * 5 + [5, 6, 102, 3, 102]
    assert one.positions.tolist() == [[0, 1, 2, 3, 4, 4, 4, 4, 2, 2], [0] * 5 + [1, 2, 3, 1, 2]]
    assert one.context == 5


@st.composite
def blanked(draw):
    seed, n = draw(st.integers(0, 10**6)), draw(st.integers(2, 60))
    random = rng(seed)
    text = random.integers(0, 100, n).tolist()
    make = draw(
        st.sampled_from(
            [
                lambda: token_spans(n, random, ratio=0.3),
                lambda: sentence_spans(text, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, random),
                lambda: document_span(n, random, to_end=False),
            ]
        )
    )
    spans = make() or token_spans(n, random)
    return (
        text,
        spans,
        blank_out(text, spans, SPECIAL, order=random.permutation(len(spans)).tolist()),
    )


@given(blanked())
def test_restoring_gives_the_text_back(case):
    text, _, one = case
    assert restore(one).tolist() == text


@given(blanked())
def test_positions_are_those_of_the_model_and_targets_the_next_token(case):
    _, spans, one = case
    starts = (one.tokens == SPECIAL.start).nonzero()[:, 0].tolist()
    ends = [*starts[1:], len(one.tokens)]
    blocks = [(int(one.positions[0, a]), b - a) for a, b in zip(starts, ends, strict=True)]
    assert torch.equal(one.positions, block_positions(one.context, blocks))
    assert one.positions[0].max() < one.context
    for a, b in zip(starts, ends, strict=True):
        assert torch.equal(one.targets[a : b - 1], one.tokens[a + 1 : b])
        assert one.targets[b - 1] == SPECIAL.end
        assert one.tokens[one.positions[0, a]] == SPECIAL.mask
    assert (one.targets[: one.context] == -100).all()
    assert len(starts) == len(spans) == int((one.tokens == SPECIAL.mask).sum())


@given(st.integers(0, 10**6), st.integers(2, 200), st.sampled_from([0.01, 0.15, 0.5, 0.9]))
def test_token_spans_cut_their_share_and_never_touch(seed, n, ratio):
    spans = token_spans(n, rng(seed), ratio=ratio)
    cut = sum(end - start for start, end in spans)
    full = (
        n - cut - max(1, len(spans)) < 1
    )  # no room is left for one more span and a token beside it
    assert cut >= ratio * n or full
    assert cut - (spans_longest(spans)) < ratio * n
    assert spans[0][0] >= 0 and spans[-1][1] <= n
    assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert cut < n


def spans_longest(spans):
    return max(end - start for start, end in spans)


def test_span_lengths_are_poisson_without_zero():
    """χ² against P(k) ∝ 3ᵏ/k!, k ≥ 1, over 20,000 spans."""
    random, lengths = rng(1), []
    while len(lengths) < 20_000:
        lengths += [end - start for start, end in token_spans(2000, random)]
    mass = np.array([3.0**k for k in range(1, 10)]) / np.cumprod(range(1, 10))
    p = mass * np.exp(-3) / (1 - np.exp(-3))
    seen = np.array([lengths.count(k) for k in range(1, 10)], dtype=float)
    p, seen = np.append(p, 1 - p.sum()), np.append(seen, len(lengths) - seen.sum())
    chi2 = ((seen - p * len(lengths)) ** 2 / (p * len(lengths))).sum()
    assert chi2 < 21.7  # 1% of a χ² with 9 degrees of freedom lies above


def test_every_place_is_cut_equally_often():
    """No edge is favored: the share of each place over 4,000 texts, within five deviations."""
    n, counts, random = 40, np.zeros(40), rng(2)
    for _ in range(4000):
        for start, end in token_spans(n, random):
            counts[start:end] += 1
    inner = counts[6:-6] / 4000
    assert abs(inner / inner.mean() - 1).max() < 0.25
    assert counts.min() > 0


def test_sentences_are_cut_whole_and_apart():
    text = [5, 6, 0, 7, 0, 8, 9, 4, 0, 3, 0, 2, 1]  # 0 ends a sentence; the last has no end
    sentences = {(0, 3), (3, 5), (5, 9), (9, 11), (11, 13)}
    seen = set()
    for seed in range(60):
        spans = sentence_spans(text, {0}, rng(seed), ratio=0.3)
        assert set(spans) <= sentences
        assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))
        assert sum(end - start for start, end in spans) >= 0.3 * 13
        seen |= set(spans)
    assert seen == sentences
    assert sentence_spans([1, 2, 3], {9}, rng()) == []


@pytest.mark.parametrize("to_end", [True, False])
def test_the_long_span_has_half_of_the_text_or_more(to_end):
    lengths, starts = [], []
    for seed in range(500):
        ((start, end),) = document_span(20, rng(seed), to_end=to_end)
        assert 0 <= start < end <= 20
        assert not to_end or end == 20
        lengths.append(end - start)
        starts.append(start)
    assert set(lengths) == set(range(10, 20))
    assert to_end or min(starts) == 0


def batches(**options):
    stream = torch.arange(1, 5000) % 97
    given = {"levels": {"token": 1, "sentence": 1, "document": 1}, "sentence_ends": {0, 50}}
    return BlankBatches(stream, 24, 5, SPECIAL, **{**given, **options})


def test_batches_are_a_function_of_seed_and_number():
    one, two, other = batches()[7], batches()[7], batches(seed=1)[7]
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert one["tokens"].shape != other["tokens"].shape or not torch.equal(
        one["tokens"], other["tokens"]
    )
    assert one["positions"].shape == (5, 2, one["tokens"].shape[1])


def test_every_row_of_a_batch_is_a_window_of_the_stream_with_holes():
    masks = {"sentence": 104, "document": 105}
    found = set()
    for index in range(12):
        batch = batches(masks=masks)[index]
        for row in range(5):
            tokens, n = batch["tokens"][row], int(batch["context"][row])
            found |= {100, 104, 105} & set(tokens.tolist())
            length = int((tokens != SPECIAL.pad).sum())
            assert (batch["targets"][row, length:] == -100).all()
            part = {k: batch[k][row, ..., :length] for k in ("tokens", "targets", "positions")}
            text = restore(type(blank_out([1, 2, 3], [(0, 1)], SPECIAL))(**part, context=n))
            assert len(text) == 24
            assert set((text[1:] - text[:-1]).tolist()) <= {1, -96}
    assert found == {100, 104, 105}


def test_levels_come_in_their_shares():
    masks, counts = {"sentence": 104, "document": 105}, {100: 0, 104: 0, 105: 0}
    many = batches(masks=masks, levels={"token": 2, "sentence": 1, "document": 1})
    for index in range(80):
        for row in many[index]["tokens"]:
            (mask,) = {100, 104, 105} & set(row.tolist())
            counts[mask] += 1
    # sentences end at every 50th id: some windows of 24 have one sentence and are blanked by token
    assert counts[100] > 200 - 40
    assert abs(counts[105] - 100) < 40


def test_spans_are_shuffled_unless_told_not_to():
    def in_order(batch):
        for tokens, (place, inner) in zip(batch["tokens"], batch["positions"], strict=True):
            first = place[(inner == 1) & (tokens == SPECIAL.start)].tolist()
            yield first == sorted(first)

    only = {"levels": {"token": 1}}
    assert all(all(in_order(batches(shuffle=False, **only)[i])) for i in range(10))
    assert not all(all(in_order(batches(**only)[i])) for i in range(10))


@pytest.mark.parametrize(
    ("spans", "order", "words"),
    [
        ([], None, "cut something"),
        ([(0, 5)], None, "not all"),
        ([(1, 3), (3, 4)], None, "between two"),
        ([(3, 4), (1, 2)], None, "in order"),
        ([(2, 2)], None, "not empty"),
        ([(4, 6)], None, "inside"),
        ([(0, 1), (2, 3)], [0, 0], "each of the 2"),
    ],
)
def test_spans_that_cannot_be_cut_are_named(spans, order, words):
    with pytest.raises(ValueError, match=words):
        blank_out([1, 2, 3, 4, 5], spans, SPECIAL, order=order)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="not occur in the text"):
        blank_out([1, 100, 3], [(0, 1)], SPECIAL)
    with pytest.raises(ValueError, match="differ from each other"):
        blank_out([1, 2, 3], [(0, 1)], BlankTokens(mask=7, start=7, end=8))
    with pytest.raises(ValueError, match="'sentence'"):
        batches(sentence_ends=())
    with pytest.raises(ValueError, match="levels"):
        batches(levels={"paragraph": 1})
    with pytest.raises(ValueError, match="seq_len"):
        BlankBatches(torch.arange(5), 6, 1, SPECIAL, levels={"token": 1})
    with pytest.raises(IndexError, match="from 0"):
        batches()[-1]
    with pytest.raises(ValueError, match="ratio"):
        token_spans(9, rng(), ratio=1.0)
    with pytest.raises(ValueError, match="1 token"):
        token_spans(1, rng())
    with pytest.raises(ValueError, match="least"):
        document_span(9, rng(), least=0.0)
