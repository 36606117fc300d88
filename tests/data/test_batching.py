"""Windows: a pure function of (seed, index), every token dealt, bad input refused."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from minillm.data import TokenWindows, join_documents

SIZES = [(6, 5, 1), (64, 7, 3), (65, 8, 4), (1000, 16, 5), (33, 16, 1), (31, 16, 2)]


@pytest.mark.parametrize(("n", "seq_len", "batch_size"), SIZES)
def test_targets_are_inputs_one_later(n, seq_len, batch_size):
    windows = TokenWindows(torch.arange(n), seq_len, batch_size)
    for index in range(30):
        inputs, targets = windows[index]
        assert inputs.shape == targets.shape == (batch_size, seq_len)
        assert torch.equal(targets, inputs + 1)
        assert inputs.min() >= 0 and targets.max() < n


@pytest.mark.parametrize(("n", "seq_len", "batch_size"), SIZES)
def test_an_epoch_deals_every_window_once(n, seq_len, batch_size):
    windows = TokenWindows(torch.arange(n), seq_len, 1)
    for epoch in range(5):
        first = epoch * windows.windows_per_epoch
        seen = torch.cat([windows[first + i][0][0] for i in range(windows.windows_per_epoch)])
        assert len(seen.unique()) == len(seen) == windows.windows_per_epoch * seq_len
        assert n - len(seen) < 2 * seq_len


def test_offsets_vary_and_reach_both_ends():
    windows = TokenWindows(torch.arange(30), 8, 1)
    tokens = torch.cat([torch.cat(windows[i]).flatten() for i in range(200)])
    assert set(tokens.tolist()) == set(range(30))


def test_resumes_by_index_whatever_was_asked_before():
    tokens = torch.arange(500)
    straight = [TokenWindows(tokens, 9, 4, seed=7)[i] for i in range(60)]  # a new object each time
    windows = TokenWindows(tokens, 9, 4, seed=7)
    for index in [50, 3, 3, 59, 0, 17]:
        assert torch.equal(windows[index][0], straight[index][0])
    resumed = list(itertools.islice(windows.from_index(37), 20))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(resumed, straight[37:57], strict=True))
    assert torch.equal(next(iter(windows))[0], straight[0][0])


def test_does_not_touch_global_random_state():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    TokenWindows(torch.arange(100), 5, 2)[33]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_seeds_and_epochs_differ():
    tokens = torch.arange(1000)
    a, b = TokenWindows(tokens, 10, 99, seed=0), TokenWindows(tokens, 10, 99, seed=1)
    assert not torch.equal(a[0][0], b[0][0])
    assert not torch.equal(a[0][0], a[1][0])


@pytest.mark.parametrize("kind", [list, np.array, lambda t: torch.tensor(t, dtype=torch.int32)])
def test_takes_lists_arrays_and_narrow_integers(kind):
    inputs, _ = TokenWindows(kind(list(range(50))), 5, 2, vocab_size=50)[0]
    assert inputs.dtype == torch.int64


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (torch.arange(8), {"seq_len": 8}, "8 tokens are too few for a window of 8"),
        (torch.arange(0), {}, "0 tokens are too few"),
        (torch.arange(9), {"seq_len": 0}, "seq_len is 0"),
        (torch.arange(9), {"batch_size": -1}, "batch_size is -1"),
        (torch.arange(9), {"seed": -1}, "seed is -1"),
        (torch.arange(9), {"vocab_size": 8}, "token id 8 is outside the vocabulary of 8"),
        ([3, -1, 4], {}, "token id -1 is negative"),
        (np.arange(9.0), {}, "float64"),
    ],
)
def test_bad_input(tokens, options, message):
    with pytest.raises(ValueError, match=message):
        TokenWindows(tokens, **{"seq_len": 2, "batch_size": 1} | options)


def test_two_dimensional_tokens_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        TokenWindows(np.arange(9).reshape(3, 3), 2, 1)


def test_negative_index():
    with pytest.raises(IndexError, match="batch -1"):
        TokenWindows(torch.arange(9), 2, 1)[-1]


def test_join_documents():
    assert join_documents([[1, 2], [], [3]], 9).tolist() == [9, 1, 2, 9, 9, 3, 9]
    assert join_documents([], 0).tolist() == [0]
    with pytest.raises(ValueError, match="separator is -1"):
        join_documents([[1]], -1)


UNTYPED = """
from minillm.data import TokenWindows, join_documents
for make, message in [
    (lambda: TokenWindows("abc", 1, 1), "tokens of type str are no ids"),
    (lambda: TokenWindows(None, 1, 1), "tokens of type NoneType are no ids"),
    (lambda: TokenWindows([1, 2, 3], 1.5, 1), "seq_len is 1.5; give a whole number"),
    (lambda: TokenWindows([1, 2, 3], 1, 1, seed=1.5), "seed is 1.5; give a whole number"),
    (lambda: join_documents([[1.5]], 0), "token ids are integers"),
    (lambda: join_documents([[-1]], 0), "token id -1 is negative"),
]:
    try:
        make()
    except ValueError as error:
        assert message in str(error), (message, str(error))
    else:
        raise AssertionError(f"no error for {message}")
"""


def test_mistakes_where_nothing_checks_types_at_run_time():
    subprocess.run([sys.executable, "-c", UNTYPED], check=True)
