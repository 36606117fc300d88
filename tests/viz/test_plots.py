"""The recurring pictures draw the numbers they are given, labels included."""

import html
import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from minillm.viz import attention_heads, attention_map, loss_curve, loss_curves, token_strip
from minillm.viz.plots import running_mean


def test_attention_map_draws_the_weights_with_queries_as_rows():
    weights = torch.softmax(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), -1)
    ax = attention_map(weights, ["a", "b", "c"], list("vwxyz")).axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), weights.numpy())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    assert [t.get_text() for t in ax.get_xticklabels()] == list("vwxyz")
    assert ax.images[0].get_clim() == (0.0, 1.0)
    assert ax.texts[0].get_text() == f"{weights[0, 0]:.2f}"
    assert len(ax.texts) == 15


def test_attention_map_shows_blanks_and_does_not_parse_math():
    fig = attention_map(torch.eye(3), [" a", "$x$", "\n"])
    labels = fig.axes[0].get_xticklabels()
    assert [t.get_text() for t in labels] == ["·a", "$x$", "⏎"]
    assert not any(t.get_parse_math() for t in labels)


def test_labels_must_fit():
    with pytest.raises(ValueError, match="2 labels in queries for an axis of 3"):
        attention_map(torch.eye(3), ["a", "b"])
    with pytest.raises(ValueError, match="1 titles for 2 heads"):
        attention_heads(torch.eye(3).expand(2, 3, 3), titles=["only"])


def test_attention_heads_draws_every_head_once_on_one_scale():
    weights = torch.softmax(torch.arange(5 * 9.0).reshape(5, 3, 3), -1)
    axes = attention_heads(weights, columns=3).axes
    drawn = [ax for ax in axes if ax.images and ax.get_title()]
    assert [ax.get_title() for ax in drawn] == [f"head {i}" for i in range(5)]
    for ax, head in zip(drawn, weights, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), head.numpy())
        assert ax.images[0].get_clim() == (0.0, 1.0)


def text_of(strip):
    """What selecting and copying gives: text nodes, less those that cannot be selected."""
    page = re.sub(r"<style>.*?</style>", "", strip.html, flags=re.DOTALL)
    page = re.sub(r'<span class="id">.*?</span>', "", page)
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def test_token_strip_copies_as_the_text_itself():
    pieces = [b"The", b" cat", b" <b>&", "\n\n", "语言", b"\tx"]
    strip = token_strip(pieces, [1, 2, 3, 4, 5, 6])
    assert text_of(strip) == "The cat <b>&\n\n语言\tx"
    assert strip.html.count('class="tok"') == 6
    assert "id 3" in strip.html
    assert "<b>" not in strip.html


def test_token_strip_shows_half_characters_as_bytes():
    first, second = "é".encode()[:1], "é".encode()[1:]
    strip = token_strip([b"caf", first, second])
    assert text_of(strip) == "caf<C3><A9>"
    assert repr(strip) == "3 tokens: caf|<C3>|<A9>"


def test_token_strip_marks_blanks_and_is_labelled():
    strip = token_strip([b" a", b"\n"])
    assert 'data-see="·"' in strip.html
    assert 'data-see="⏎"' in strip.html
    assert 'aria-label="2 tokens: ·a|⏎"' in strip.html
    assert 'aria-label="mine"' in token_strip([b"a"], label="mine").html


def test_token_strip_needs_an_id_a_piece():
    with pytest.raises(ValueError, match="1 ids for 2 pieces"):
        token_strip([b"a", b"b"], [1])


@dataclass
class Row:
    step: int
    loss: float
    eval: float | None = None


def test_loss_curve_draws_records_held_out_loss_and_baselines():
    rows = [Row(i, 5 - i / 10, 4.0 if i == 7 else None) for i in range(10)]
    ax = loss_curve(iter(rows), baselines={"unigram": 3.3}).axes[0]
    raw, mean, dots, baseline = ax.lines
    assert list(raw.get_ydata()) == [r.loss for r in rows]
    assert list(mean.get_xdata()) == list(range(10))
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([7], [4.0])
    assert set(baseline.get_ydata()) == {3.3}
    assert "nats" in ax.get_ylabel()


def test_loss_curves_names_each_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = loss_curves({"a": [Row(0, 1.0)], "b": [Row(0, 2.0)]}).axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]


def test_running_mean_equals_its_definition():
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    expected = [np.mean(values[max(0, i - 2) : i + 1]) for i in range(6)]
    np.testing.assert_allclose(running_mean(values, 3), expected)
