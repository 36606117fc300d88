"""Filters keep exactly the tokens that transformers' warpers keep; draws have their law."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from minillm.generation import sampling
from minillm.generation.sampling import Sampler, greedy, sample

# --- the filters against transformers, and wrong versions against them


def random_logits(v, dtype, seed=0):
    """Peaked and flat rows, positive and negative logits, and ties (a rounded row)."""
    g = torch.Generator().manual_seed(seed)
    rows = [torch.randn(v, generator=g, dtype=dtype) * scale for scale in (0.1, 1, 3, 10)]
    rows.append((torch.randn(v, generator=g, dtype=dtype) * 2).round())
    return torch.stack(rows)


def cases():
    return [
        random_logits(v, dtype, v)
        for v in (1, 2, 7, 123, 1001)
        for dtype in (torch.float32, torch.float64)
    ]


def same(ours, theirs):
    """Bit-equal, −∞ where a token was removed."""
    return all(torch.equal(ours(x), theirs(None, x)) for x in cases())


@pytest.mark.parametrize("k", [1, 2, 5, 50, 5000])
def test_top_k_equals_transformers(k):
    assert same(lambda x: sampling.top_k(x, k), TopKLogitsWarper(k))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.95, 0.999])
def test_top_p_equals_transformers(p):
    assert same(lambda x: sampling.top_p(x, p), TopPLogitsWarper(p))


@pytest.mark.parametrize("p", [1e-6, 0.02, 0.3, 1.0])
def test_min_p_equals_transformers(p):
    assert same(lambda x: sampling.min_p(x, p), MinPLogitsWarper(p))


@pytest.mark.parametrize("t", [1e-3, 0.7, 1.0, 1.9])
def test_temperature_equals_transformers(t):
    assert same(lambda x: sampling.temperature(x, t), TemperatureLogitsWarper(t))


def penalty_agrees(penalize, penalty):
    for x in cases():
        previous = torch.randint(
            0, x.shape[1], (len(x), 9), generator=torch.Generator().manual_seed(1)
        )
        if not torch.equal(
            penalize(x, previous, penalty), RepetitionPenaltyLogitsProcessor(penalty)(previous, x)
        ):
            return False
    return True


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty_equals_transformers(penalty):
    assert penalty_agrees(sampling.repetition_penalty, penalty)


def top_k_drops_ties(x, k):
    keep = torch.zeros_like(x, dtype=torch.bool).scatter(
        -1, x.topk(min(k, x.shape[-1])).indices, True
    )
    return x.masked_fill(~keep, -torch.inf)


def top_k_greater_than(x, k):
    return x.masked_fill(~(x > x.topk(min(k, x.shape[-1])).values[..., -1:]), -torch.inf)


def top_p_drops_crossing_token(x, p):
    descending, order = x.sort(descending=True)
    removed = descending.softmax(-1).cumsum(-1) > p
    removed[..., 0] = False
    return x.masked_fill(removed.scatter(-1, order, removed), -torch.inf)


def top_p_forgets_to_unsort(x, p):
    descending = x.sort(descending=True).values.softmax(-1)
    return x.masked_fill(descending.cumsum(-1) - descending >= p, -torch.inf)


def min_p_absolute(x, p):
    return x.masked_fill(x.softmax(-1) < p, -torch.inf)


def min_p_on_logits(x, p):
    return x.masked_fill(x < p * x.amax(-1, keepdim=True), -torch.inf)


@pytest.mark.parametrize(
    ("wrong", "theirs"),
    [
        (lambda x: top_k_drops_ties(x, 5), TopKLogitsWarper(5)),
        (lambda x: top_k_greater_than(x, 5), TopKLogitsWarper(5)),
        (lambda x: top_p_drops_crossing_token(x, 0.9), TopPLogitsWarper(0.9)),
        (lambda x: top_p_forgets_to_unsort(x, 0.9), TopPLogitsWarper(0.9)),
        (lambda x: min_p_absolute(x, 0.02), MinPLogitsWarper(0.02)),
        (lambda x: min_p_on_logits(x, 0.02), MinPLogitsWarper(0.02)),
        (lambda x: x * 0.7, TemperatureLogitsWarper(0.7)),
    ],
)
def test_wrong_filters_are_noticed(wrong, theirs):
    assert not same(wrong, theirs)


def penalty_divides_negatives(x, previous, penalty):
    return torch.where(
        torch.zeros_like(x, dtype=torch.bool).scatter(1, previous, True), x / penalty, x
    )


def penalty_counts_repeats(x, previous, penalty):
    x = x.clone()
    for row, ids in zip(x, previous, strict=True):
        for i in ids:
            row[i] = row[i] * penalty if row[i] < 0 else row[i] / penalty
    return x


def penalty_on_every_token(x, previous, penalty):
    return torch.where(x < 0, x * penalty, x / penalty)


@pytest.mark.parametrize(
    "wrong", [penalty_divides_negatives, penalty_counts_repeats, penalty_on_every_token]
)
def test_wrong_penalties_are_noticed(wrong):
    assert not penalty_agrees(wrong, 1.3)


# --- what the definitions say, on numbers small enough to read


def kept(logits):
    return logits.isfinite().nonzero()[:, -1].tolist()


def test_top_p_keeps_the_token_that_crosses():
    logits = torch.tensor([0.15, 0.5, 0.3, 0.05], dtype=torch.float64).log()
    assert kept(sampling.top_p(logits[None], 0.6)) == [1, 2]  # 0.5 < 0.6 <= 0.5 + 0.3
    assert kept(sampling.top_p(logits[None], 0.4)) == [1]
    assert kept(sampling.top_p(logits[None], 0.94)) == [0, 1, 2]


def test_top_p_on_the_boundary_takes_the_smaller_set():
    logits = torch.zeros(1, 4)  # four quarters, exact in binary
    assert [len(kept(sampling.top_p(logits, p))) for p in (0.25, 0.5, 0.75)] == [1, 2, 3]


def test_a_top_p_lost_to_rounding_keeps_the_likeliest_token():
    logits = torch.tensor([[0.0, 1.0, 0.5]])
    assert kept(sampling.top_p(logits, 1e-12)) == [1]  # 1 − p is 1 in fp32


def test_top_p_of_1_keeps_tokens_lost_to_rounding():
    logits = torch.zeros(1, 40_000)
    logits[0, 0] = 30.0  # the rest weigh 1e-13 each: their sum with 1 rounds to 1 in fp32
    assert len(kept(sampling.top_p(logits, 1.0))) == 40_000


def test_top_k_keeps_ties_and_a_large_k_keeps_all():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    assert kept(sampling.top_k(logits, 2)) == [1, 2, 3, 4]
    assert kept(sampling.top_k(logits, 99)) == [0, 1, 2, 3, 4, 5]


def test_penalty_skips_padding():
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    out = sampling.repetition_penalty(logits, torch.tensor([[-1, -1, 1, 0]]), 2.0)
    assert out.tolist() == [[1.0, -4.0, 1.0]]
    assert torch.equal(
        sampling.repetition_penalty(logits, torch.zeros(1, 0, dtype=torch.long), 2.0), logits
    )


def test_filters_leave_their_input_alone():
    logits = random_logits(50, torch.float64)
    before = logits.clone()
    Sampler(0.7, 5, 0.9, 0.1, 1.3).warp(logits, torch.zeros(5, 3, dtype=torch.long))
    assert torch.equal(logits, before)


# --- the order of the filters


def reference_chain(order):
    warpers = {
        "penalty": RepetitionPenaltyLogitsProcessor(1.3),
        "temperature": TemperatureLogitsWarper(1.9),
        "top_k": TopKLogitsWarper(30),
        "top_p": TopPLogitsWarper(0.9),
        "min_p": MinPLogitsWarper(0.3),
    }
    return LogitsProcessorList([warpers[name] for name in order])


STATED = ["penalty", "temperature", "top_k", "top_p", "min_p"]


@pytest.mark.parametrize(
    ("order", "equal"),
    [
        (STATED, True),
        (
            ["penalty", "top_k", "top_p", "min_p", "temperature"],
            False,
        ),  # llama.cpp's: temperature last
        (
            ["temperature", "penalty", "top_k", "top_p", "min_p"],
            True,
        ),  # both scale, so they commute
        (["penalty", "temperature", "top_p", "top_k", "min_p"], False),
        (["penalty", "temperature", "top_k", "min_p", "top_p"], False),
    ],
)
def test_order_is_the_stated_one_and_matters(order, equal):
    logits = random_logits(300, torch.float64)
    previous = torch.arange(45).view(5, 9)
    ours = Sampler(1.9, 30, 0.9, 0.3, 1.3).warp(logits, previous)
    theirs = reference_chain(order)(previous, logits)
    assert torch.equal(ours.isfinite(), theirs.isfinite()) is equal


# --- drawing


def p_value(counts, expected):
    """Of Pearson's χ² statistic, which has Gamma(df / 2) as its law."""
    statistic = ((counts - expected) ** 2 / expected).sum()
    shape = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return torch.special.gammaincc(shape, statistic / 2)


def draw(sampler, logits, n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return sampler(logits.expand(n, -1), torch.zeros(n, 1, dtype=torch.long), g)


LOGITS = torch.tensor([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -8.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(),
        Sampler(temperature=0.7),
        Sampler(temperature=1.5, top_k=5),
        Sampler(top_p=0.8),
        Sampler(min_p=0.2),
        Sampler(0.8, 6, 0.9, 0.1, 1.2),
    ],
)
def test_frequencies_follow_the_law(sampler):
    n = 40_000
    law = reference_law(sampler)
    counts = draw(sampler, LOGITS, n).bincount(minlength=8)
    assert counts[law == 0].sum() == 0, "a removed token was drawn"
    assert p_value(counts[law > 0], n * law[law > 0]) > 1e-3


def reference_law(s):
    """Computed with transformers, as a chain in the stated order."""
    chain = [RepetitionPenaltyLogitsProcessor(s.repetition_penalty)]
    chain += [TemperatureLogitsWarper(s.temperature)]
    chain += [TopKLogitsWarper(s.top_k)] if s.top_k else []
    chain += [TopPLogitsWarper(s.top_p)] if s.top_p else []
    chain += [MinPLogitsWarper(s.min_p)] if s.min_p else []
    return LogitsProcessorList(chain)(torch.zeros(1, 1, dtype=torch.long), LOGITS).softmax(-1)[0]


def test_frequencies_notice_a_wrong_temperature():
    n = 40_000
    counts = draw(Sampler(temperature=1.05), LOGITS, n).bincount(minlength=8)
    assert p_value(counts, n * LOGITS.softmax(-1)[0]) < 1e-3


def test_same_seed_same_tokens():
    logits = random_logits(1001, torch.float32)
    draws = [draw(Sampler(), logits[:1], 50, seed) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_generator_leaves_the_global_one_alone():
    before = torch.random.get_rng_state()
    sample(LOGITS, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_greedy_takes_the_first_of_the_largest():
    logits = torch.tensor([[0.0, 5.0, 5.0], [1.0, -1.0, 0.0]])
    assert greedy(logits).tolist() == [1, 0]
    assert greedy(logits[0]).tolist() == 1
    logits = random_logits(1001, torch.float32)
    assert torch.equal(greedy(logits), logits.argmax(-1))


def test_top_k_of_1_and_tiny_top_p_are_greedy():
    logits = random_logits(300, torch.float64)[:4]
    tokens = torch.zeros(4, 1, dtype=torch.long)
    for settings in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-6}):
        assert torch.equal(Sampler(**settings)(logits, tokens), greedy(logits))


# --- errors name the value and the way out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, r"temperature is 0\.0.*greedy"),
        ({"temperature": -1.0}, r"temperature is -1"),
        ({"temperature": float("nan")}, r"temperature is nan"),
        ({"temperature": float("inf")}, r"temperature is inf"),
        ({"top_k": 0}, r"top_k is 0.*None"),
        ({"top_k": -3}, r"top_k is -3"),
        ({"top_p": 0.0}, r"top_p is 0\.0.*0 < p <= 1"),
        ({"top_p": 1.2}, r"top_p is 1\.2"),
        ({"top_p": float("nan")}, r"top_p is nan"),
        ({"min_p": -0.1}, r"min_p is -0\.1"),
        ({"min_p": 1.1}, r"min_p is 1\.1"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty is 0\.0"),
        ({"repetition_penalty": -1.0}, r"repetition_penalty is -1"),
    ],
)
def test_bad_settings_fail_when_the_sampler_is_made(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ([1.0, float("nan")], "nan"),
        ([1.0, float("inf")], "inf"),
        ([-float("inf")] * 2, "-inf"),
    ],
)
def test_undefined_logits_are_refused(bad, named):
    logits = torch.tensor([[0.0, 1.0], bad])
    for choose in (greedy, sample):
        with pytest.raises(ValueError, match=f"row is {named}.*check the weights"):
            choose(logits)
    with pytest.raises(ValueError, match="check the weights"):
        Sampler(top_p=0.9)(logits, torch.zeros(2, 1, dtype=torch.long))


@pytest.mark.parametrize("bad", [3, -2])
def test_penalty_refuses_ids_out_of_range(bad):
    with pytest.raises(ValueError, match=f"token id {bad} .* 3 logits"):
        sampling.repetition_penalty(torch.zeros(1, 3), torch.tensor([[0, bad]]), 1.1)
