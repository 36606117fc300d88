"""Figures carry alternative text, are crisp, opaque and reproducible, and never warn."""

import base64
import io
import itertools
import re
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from minillm.viz import COLORS, figure, style, subplots, use

ALT = "Line plot: a straight line rises from 0 to 1"


def drawing():
    fig, ax = subplots(width=4, height=2)
    ax.plot([0, 1], [0, 1])
    return fig


def image_of(shown):
    data = re.search(r"base64,([^\"]+)", shown.html).group(1)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_image_is_twice_its_css_width_opaque_and_light():
    shown = figure(drawing(), alt=ALT)
    image = image_of(shown)
    assert 'width="400"' in shown.html
    assert image.size == (800, 400)
    assert "transparency" not in image.info
    assert min(image.convert("RGB").getpixel((0, 0))) > 245
    assert repr(shown) == f"[figure: {ALT}]"


def test_equal_figures_give_equal_bytes_without_metadata():
    first, second = style.png(drawing()), style.png(drawing())
    assert first == second
    assert b"Software" not in first
    assert b"tEXt" not in first
    assert b"tIME" not in first


@pytest.mark.parametrize("alt", ["", "figure", "a plot", "loss_curve_final_version.png"])
def test_poor_alt_text_is_refused(alt):
    with pytest.raises(ValueError, match="says too little"):
        figure(drawing(), alt=alt)


def test_alt_text_is_escaped():
    shown = figure(drawing(), alt='Line plot of "a < b" & more words')
    assert 'alt="Line plot of &quot;a &lt; b&quot; &amp; more words"' in shown.html


def test_pyplot_figures_are_closed():
    before = pyplot.get_fignums()
    fig, _ = pyplot.subplots()
    figure(fig, alt=ALT)
    assert pyplot.get_fignums() == before


def test_chinese_labels_neither_crash_nor_warn(monkeypatch):
    for fonts in (style._CJK, ("No Such Font",)):
        monkeypatch.setattr(style, "_CJK", fonts)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fig, ax = subplots()
            with matplotlib.rc_context(style.rc()):
                ax.set_title("语言模型")
                figure(fig, alt="An empty plot with a Chinese title")


def test_use_sets_the_light_and_the_dark_variant():
    with matplotlib.rc_context():
        use()
        assert matplotlib.rcParams["axes.facecolor"] == style.PAPER
        use(dark=True)
        assert matplotlib.rcParams["axes.facecolor"] == style.NIGHT
        assert contrast(style.NIGHT, style.CHALK) > 7
    assert contrast(style.PAPER, style.INK) > 7


def luminance(color):
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


# Viénot, Brettel & Mollon (1999): linear RGB as seen without red or without green cones.
PROTAN = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTAN = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


@pytest.mark.parametrize("seen_as", [np.eye(3), PROTAN, DEUTAN])
@pytest.mark.parametrize("dark", [False, True])
def test_line_colors_differ_for_color_blind_readers(seen_as, dark):
    colors = [entry["color"] for entry in style.rc(dark=dark)["axes.prop_cycle"]][:4]
    seen = [seen_as @ np.array(matplotlib.colors.to_rgb(c)) ** 2.2 for c in colors]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.08


def test_line_colors_stand_out_from_the_paper():
    colors = [entry["color"] for entry in style.rc()["axes.prop_cycle"]]
    assert all(contrast(style.PAPER, color) > 2 for color in colors)
    assert set(colors) <= set(COLORS.values())
