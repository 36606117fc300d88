"""Packing: whole documents, few rows, nothing seen across a border; wrong versions fail."""

import itertools
import random

import pytest
import torch

from minillm.data.packing import Packed, best_fit, block_diagonal_mask, pack
from minillm.models.gpt import gpt2
from minillm.nn import cross_entropy

DOCUMENTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15], [16, 17, 18, 19]]


def noisy_gpt():
    torch.manual_seed(0)
    model = gpt2(vocab_size=29, max_seq_len=16, d_model=12, n_layers=2, n_heads=3)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("order", ["best_fit", "as_given"])
def test_every_document_stands_whole_where_the_table_says(order):
    packed = pack(DOCUMENTS, 7, order=order)
    assert len(packed.documents) == len(DOCUMENTS)
    seen = torch.zeros_like(packed.tokens)
    for document, (row, begin) in zip(DOCUMENTS, packed.documents, strict=True):
        place = (row, slice(begin, begin + len(document)))
        assert packed.tokens[place].tolist() == document
        assert packed.positions[place].tolist() == list(range(len(document)))
        assert len(packed.segments[place].unique()) == 1
        seen[place] += 1
    assert torch.equal(seen, (packed.segments > 0).long())
    assert packed.share_used == sum(map(len, DOCUMENTS)) / packed.tokens.numel()


def test_as_given_keeps_the_order():
    packed = pack(DOCUMENTS, 7, order="as_given")
    assert list(packed.documents) == sorted(packed.documents)
    assert packed.tokens.tolist() == [
        [5, 6, 7, 8, 0, 0, 0],
        [9, 10, 11, 12, 13, 14, 15],
        [16, 17, 18, 19, 0, 0, 0],
    ]


def fewest_bins(lengths, capacity):
    """By trying everything: each item into each open bin or a new one."""
    best = len(lengths)

    def place(i, loads):
        nonlocal best
        if len(loads) >= best and i < len(lengths):
            return
        if i == len(lengths):
            best = min(best, len(loads))
            return
        for k, load in enumerate(loads):
            if load + lengths[i] <= capacity:
                place(i + 1, [*loads[:k], load + lengths[i], *loads[k + 1 :]])
        place(i + 1, [*loads, lengths[i]])

    place(0, [])
    return best


def test_best_fit_needs_nearly_the_fewest_rows():
    generator = random.Random(0)
    for _ in range(60):
        lengths = [generator.randint(1, 10) for _ in range(generator.randint(1, 8))]
        bins = best_fit(lengths, 10)
        assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in one) <= 10 for one in bins)
        assert len(bins) <= 11 / 9 * fewest_bins(lengths, 10) + 6 / 9
    # where it pays to look for the best place, not for the first
    assert len(best_fit([6, 5, 4, 5], 10)) == 2


def test_mask_is_one_block_a_document_and_blind_at_padding():
    segments = torch.tensor([[1, 1, 2, 0]])
    assert block_diagonal_mask(segments)[0].long().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_targets_stay_within_a_document():
    packed = pack([[5, 6, 7], [8, 9]], 7)
    assert packed.targets.tolist() == [[6, 7, -100, 9, -100, -100, -100]]


def losses(model, packed: Packed):
    logits = model(packed.tokens, positions=packed.positions, attention_mask=packed.mask)
    return logits, cross_entropy(logits, packed.targets, reduction="sum")


def test_a_packed_row_computes_what_its_documents_compute_alone():
    model = noisy_gpt()
    packed = pack(DOCUMENTS, 7)
    logits, loss = losses(model, packed)
    alone = 0
    for document, (row, begin) in zip(DOCUMENTS, packed.documents, strict=True):
        tokens = torch.tensor([document])
        expected = model(tokens)[0]
        found = logits[row, begin : begin + len(document)]
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
        alone = alone + cross_entropy(expected[:-1], tokens[0, 1:], reduction="sum")
    torch.testing.assert_close(loss, alone, atol=1e-9, rtol=0)
    parameters = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(alone, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


WRONG = {
    "positions run on": lambda p: (p.tokens, torch.arange(7).expand(p.tokens.shape), p.mask),
    "documents see each other": lambda p: (p.tokens, p.positions, p.segments > 0),
    "padding kept apart, documents not": lambda p: (
        p.tokens,
        p.positions,
        block_diagonal_mask((p.segments > 0).long()),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_version_is_rejected(name):
    model, packed = noisy_gpt(), pack(DOCUMENTS, 7)
    tokens, positions, mask = WRONG[name](packed)
    with torch.no_grad():
        right, _ = losses(model, packed)
        wrong = model(tokens, positions=positions, attention_mask=mask)
    real = packed.segments > 0
    assert (wrong - right)[real].abs().max() > 1e-3


def test_no_gradient_and_no_logit_is_nan_at_padding():
    model, packed = noisy_gpt(), pack([[5, 6]], 5)
    logits, loss = losses(model, packed)
    loss.backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([], "no documents"),
        ([[]], "has 0 tokens"),
        ([[1] * 8], "has 8 tokens"),
        ([[-1]], "negative"),
    ],
)
def test_mistakes_are_explained(documents, said):
    with pytest.raises(ValueError, match=said):
        pack(documents, 7)
    with pytest.raises(ValueError, match="seq_len"):
        pack([[1]], 0)
