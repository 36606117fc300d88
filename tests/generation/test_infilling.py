"""Filling blanks: the same tokens with a cache as without, each seeing what stands around it."""

from functools import partial

import pytest
import torch

from minillm.data.blank_infilling import BlankTokens, blank_out, collate, restore
from minillm.generation import Sampler
from minillm.generation.infilling import Blank, fill_blanks
from minillm.models.glm import blank_loss, glm
from minillm.training import adamw, train

SPECIAL = BlankTokens(mask=30, start=31, end=32)
SMALL = {"vocab_size": 33, "max_seq_len": 48, "d_model": 24, "n_layers": 2, "n_heads": 3}
TEXT = [3, 30, 7, 9, 11, 30, 4, 30]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = glm(**SMALL, d_ff=28).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def by_definition(model, text, order, n):
    """The likeliest token, again and again, everything read anew for each, positions by hand."""
    tokens, spans = list(text), {}
    place, inner = list(range(len(text))), [0] * len(text)
    holes = [i for i, token in enumerate(text) if token == SPECIAL.mask]
    for i in order:
        written, new = [], SPECIAL.start
        while True:
            tokens.append(new)
            place.append(holes[i])
            inner.append(len(written) + 1)
            if len(written) == n:
                break
            with torch.no_grad():
                logits = model(
                    torch.tensor([tokens]),
                    context=torch.tensor([len(text)]),
                    positions=torch.tensor([[place, inner]]),
                )
            new = int(logits[0, -1].argmax())
            if new == SPECIAL.end:
                break
            written.append(new)
        spans[i] = written
    return [spans[i] for i in range(len(holes))]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
@pytest.mark.parametrize("cache", ["auto", None])
def test_greedy_filling_is_the_definition(model, order, cache):
    filled = fill_blanks(model, TEXT, SPECIAL, max_new_tokens=5, order=order, cache=cache)
    assert filled == by_definition(model, TEXT, order, 5)
    assert len({token for span in filled for token in span}) > 2


def test_later_spans_see_earlier_ones(model):
    """Written in another order, a span comes out differently (for these weights)."""
    one = fill_blanks(model, TEXT, SPECIAL, max_new_tokens=6, order=[0, 1, 2])
    two = fill_blanks(model, TEXT, SPECIAL, max_new_tokens=6, order=[2, 1, 0])
    assert one != two


def test_a_blank_is_a_language_model_for_any_sampler(model):
    options = {"max_new_tokens": 4, "sampler": Sampler(temperature=2.0)}
    draws = {
        str(
            fill_blanks(model, TEXT, SPECIAL, generator=torch.Generator().manual_seed(i), **options)
        )
        for i in range(5)
    }
    assert len(draws) > 1


def test_cache_and_no_cache_give_the_same_logits_in_any_chunks(model):
    place = torch.arange(len(TEXT))
    blank = Blank(model, torch.tensor(TEXT), torch.stack([place, place * 0]), context=8, hole=5)
    span = torch.tensor([[31, 4, 9, 2, 17]])
    with torch.inference_mode():
        expected = blank(span)
        for cuts in ([0, 1, 2, 3, 4, 5], [0, 3, 5]):
            cache = blank.new_cache(1, 5)
            assert cache.length == 0
            parts = [blank(span[:, a:b], cache=cache) for a, b in zip(cuts, cuts[1:], strict=False)]
            assert (torch.cat(parts, dim=1) - expected).abs().max() < 1e-10
            cache.rollback(2)
            assert (blank(span[:, 2:], cache=cache) - expected[:, 2:]).abs().max() < 1e-10


def test_a_trained_model_fills_in_what_was_cut():
    torch.manual_seed(0)
    model = glm(**SMALL, d_ff=48)
    rows, texts = [], [list(range(k, k + 12)) for k in (2, 9, 15)]
    for text in texts:
        rows.append(blank_out(text, [(2, 5), (8, 10)], SPECIAL, order=[1, 0]))
    batch = collate(rows)
    list(train(model, [batch] * 50, optimizer=adamw(model, 2e-2), steps=50, loss_fn=blank_loss))
    model.eval()
    for row, text in zip(rows, texts, strict=True):
        given = row.tokens[: row.context]
        spans = fill_blanks(model, given, SPECIAL, max_new_tokens=8, order=[1, 0])
        assert spans == [text[2:5], text[8:10]]
        assert restore(row).tolist() == text


def test_bad_input_is_named(model):
    fill = partial(fill_blanks, model, special=SPECIAL, max_new_tokens=3)
    with pytest.raises(ValueError, match="no token 30"):
        fill([1, 2, 3])
    with pytest.raises(ValueError, match="each of the 3 holes"):
        fill(TEXT, order=[0, 1])
