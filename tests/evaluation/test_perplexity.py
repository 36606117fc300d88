"""Perplexity against a brute-force definition and transformers' recipe, with its wrong versions."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.evaluation.perplexity import Perplexity, perplexity, plan
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.ngram import AddK

VOCAB, N = 17, 47


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=VOCAB, max_seq_len=16, d_model=12, n_layers=2, n_heads=3))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.double()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(VOCAB, (N,), generator=torch.Generator().manual_seed(1))


def brute_force(model, tokens, max_seq_len, stride):
    """Each token by itself: its context starts where the first window that reaches it does."""
    nll = 0.0
    for j in range(1, len(tokens)):  # token j is predicted from inputs begin … j − 1
        begin = max(0, math.ceil((j - max_seq_len) / stride) * stride)
        with torch.no_grad():
            logits = model(tokens[None, begin:j])
        nll -= logits[0, -1].log_softmax(-1)[tokens[j]].item()
    return nll


CASES = [(16, 16), (16, 1), (16, 5), (8, 8), (7, 3), (1, 1), (12, 11), (16, 15)]


@pytest.mark.parametrize(("max_seq_len", "stride"), CASES)
@pytest.mark.parametrize("n", [2, 3, 8, 17, 18, N])
def test_equals_brute_force(model, tokens, max_seq_len, stride, n):
    result = perplexity(model, tokens[:n], max_seq_len=max_seq_len, stride=stride, n_bytes=99)
    expected = brute_force(model, tokens[:n], max_seq_len, stride)
    assert result.nll == pytest.approx(expected, abs=1e-9)
    assert (result.n_tokens, result.n_bytes) == (n - 1, 99)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_change_nothing(model, tokens, batch_size):
    options = {"max_seq_len": 6, "stride": 2}
    alone = perplexity(model, tokens, **options)
    together = perplexity(model, tokens, **options, batch_size=batch_size)
    assert together.nll == pytest.approx(alone.nll, abs=1e-9)


def transformers_recipe(model, tokens, max_length, stride, weigh_by_token=True):
    """The strided loop of transformers' guide, with −100 labels; a mean of means is the trap."""
    nlls, counts, previous = [], [], 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + max_length, len(tokens))
        labels = tokens[begin:end].clone()
        labels[: max(0, previous - begin)] = -100
        with torch.no_grad():
            loss = model(tokens[None, begin:end], labels=labels[None]).loss
        count = int((labels[1:] != -100).sum())
        nlls.append(loss.item())
        counts.append(count)
        previous = end
        if end == len(tokens):
            break
    if not weigh_by_token:
        return math.exp(sum(nlls) / len(nlls))
    return math.exp(sum(a * n for a, n in zip(nlls, counts, strict=True)) / sum(counts))


@pytest.fixture(scope="module")
def hf():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=16, n_embd=12, n_layer=2, n_head=3, attn_pdrop=0.0,
        attn_implementation="eager", bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


@pytest.mark.parametrize(("max_length", "stride"), [(16, 5), (12, 11), (9, 1), (8, 6)])
def test_equals_the_transformers_recipe_weighted_by_token(hf, tokens, max_length, stride):
    """Its windows hold the last target too: max_length there is max_length − 1 inputs here."""
    ours = perplexity(lambda ids: hf(ids).logits, tokens, max_seq_len=max_length - 1, stride=stride)
    theirs = transformers_recipe(hf, tokens, max_length, stride)
    assert ours.perplexity == pytest.approx(theirs, rel=1e-6)  # its loss is a float32


# Named wrong versions


def mean_of_windows(model, tokens, max_seq_len, stride):
    nlls = []
    for begin, end, first in plan(len(tokens) - 1, max_seq_len, stride):
        part = perplexity(model, tokens[begin : end + 1], max_seq_len=max_seq_len)
        del first
        nlls.append(part.nll_per_token)
    return math.exp(sum(nlls) / len(nlls))


def stride_double_counting(model, tokens, max_seq_len, stride):
    nll = count = 0
    for begin, end, _ in plan(len(tokens) - 1, max_seq_len, stride):
        part = perplexity(model, tokens[begin : end + 1], max_seq_len=max_seq_len)
        nll, count = nll + part.nll, count + part.n_tokens
    return math.exp(nll / count)


def first_token_of_each_chunk_dropped(model, tokens, max_seq_len, stride):
    nll = count = 0
    for chunk in tokens.split(max_seq_len):
        if len(chunk) > 1:
            part = perplexity(model, chunk, max_seq_len=max_seq_len)
            nll, count = nll + part.nll, count + part.n_tokens
    return math.exp(nll / count)


@pytest.mark.parametrize(
    ("wrong", "stride"),
    [
        (mean_of_windows, 16),  # the last window is short and counts as much as the others
        (stride_double_counting, 5),
        (first_token_of_each_chunk_dropped, 16),
    ],
)
def test_wrong_versions_are_caught(model, tokens, wrong, stride):
    right = perplexity(model, tokens, max_seq_len=16, stride=stride).perplexity
    assert abs(wrong(model, tokens, 16, stride) / right - 1) > 1e-3


def test_wrong_recipe_mean_of_means_differs(hf, tokens):
    options = (16, 5)
    assert transformers_recipe(hf, tokens, *options, weigh_by_token=False) != pytest.approx(
        transformers_recipe(hf, tokens, *options), rel=1e-3
    )


# The numbers


def test_a_uniform_model():
    result = perplexity(
        lambda ids: torch.zeros(*ids.shape, 8), torch.arange(7), max_seq_len=3, n_bytes=9
    )
    assert result.perplexity == pytest.approx(8)
    assert result.bits_per_token == pytest.approx(3)
    assert result.bits_per_byte == pytest.approx(3 * 6 / 9)


def test_bits_per_byte_does_not_depend_on_how_the_text_is_cut():
    """The same probabilities for the same text, once per byte and once per pair of bytes."""
    by_byte = Perplexity(nll=100 * math.log(4), n_tokens=100, n_bytes=100)
    by_pair = Perplexity(nll=50 * math.log(16), n_tokens=50, n_bytes=100)
    assert by_byte.bits_per_byte == pytest.approx(by_pair.bits_per_byte) == pytest.approx(2)
    assert (by_byte.perplexity, by_pair.perplexity) == (pytest.approx(4), pytest.approx(16))


def test_an_ngram_model_is_scored_by_the_same_function(tokens):
    ngram = AddK(3, VOCAB, 0.1).fit(tokens)
    result = perplexity(ngram, tokens, max_seq_len=N, stride=N)
    assert result.nll == pytest.approx(ngram.nll(tokens), abs=1e-9)


def test_evaluation_mode_is_used_and_put_back():
    torch.manual_seed(0)
    dropout = nn.Sequential(nn.Embedding(5, 5), nn.Dropout(0.5))
    tokens = torch.arange(5)
    first = perplexity(dropout, tokens, max_seq_len=4).nll
    assert perplexity(dropout, tokens, max_seq_len=4).nll == first and dropout.training
    dropout.eval()
    perplexity(dropout, tokens, max_seq_len=4)
    assert not dropout.training
    dropout.train()
    dropout[1].eval()  # frozen in this mode on purpose
    perplexity(dropout, tokens, max_seq_len=4)
    assert dropout.training and dropout[0].training and not dropout[1].training


def test_low_precision_logits_are_summed_in_high_precision():
    logits = torch.randn(1, 6, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens = torch.arange(7)
    result = perplexity(lambda ids: logits, tokens, max_seq_len=6)
    exact = nn.functional.cross_entropy(logits[0].double(), tokens[1:], reduction="sum")
    assert result.nll == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": torch.arange(1)}, "nothing to predict"),
        ({"stride": 0}, "stride is 0; give 1 to 4"),
        ({"stride": 5}, "stride is 5; give 1 to 4"),
        ({"max_seq_len": 0}, "max_seq_len is 0"),
        ({"n_bytes": 0}, "n_bytes is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"tokens": torch.tensor([1, VOCAB, 2])}, str(VOCAB)),
    ],
)
def test_bad_input(model, options, message):
    arguments = {"tokens": torch.arange(9), "max_seq_len": 4} | options
    with pytest.raises(ValueError, match=message):
        perplexity(model, **arguments)


def test_logits_that_are_not_finite():
    with pytest.raises(ValueError, match="nan"):
        perplexity(
            lambda ids: torch.full((*ids.shape, 5), math.nan), torch.arange(4), max_seq_len=3
        )


def test_bits_per_byte_without_bytes():
    with pytest.raises(ValueError, match="n_bytes is None"):
        _ = Perplexity(1.0, 1).bits_per_byte


def test_a_perplexity_beyond_the_range_of_floats():
    assert Perplexity(1e6, 1).perplexity == math.inf
    assert Perplexity(1e6, 1).bits_per_token == pytest.approx(1e6 / math.log(2))


UNTYPED = """
import numpy as np, torch
from minillm.evaluation.perplexity import perplexity
for tokens, message in [
    ([1, 2, 3], "of type list; write"),
    (np.arange(3), "of type ndarray; write"),
    (None, "of type NoneType"),
    (torch.arange(3.0), "dtype torch.float32"),
    (torch.ones(3, dtype=torch.bool), "dtype torch.bool"),
    (torch.arange(4).view(2, 2), "shape (2, 2)"),
    (torch.tensor(3), "shape ()"),
]:
    try:
        perplexity(lambda ids: torch.zeros(*ids.shape, 5), tokens, max_seq_len=2)
    except ValueError as error:
        assert message in str(error), (message, str(error))
    else:
        raise AssertionError(f"no error for {message}")
for name in ("max_seq_len", "stride", "batch_size"):
    try:
        perplexity(lambda ids: 0, torch.arange(3), **{"max_seq_len": 4} | {name: 2.5})
    except ValueError as error:
        assert f"{name} is 2.5; give a whole number" in str(error), error
    else:
        raise AssertionError(f"no error for {name}")
"""


def test_mistakes_where_nothing_checks_types_at_run_time():
    subprocess.run([sys.executable, "-c", UNTYPED], check=True)
