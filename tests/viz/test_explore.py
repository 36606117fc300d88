"""`explore` stores every frame, shows the first, and keeps to its limits."""

import re
import sys

import pytest

from minillm.viz import explore, subplots
from minillm.viz.explore import MAX_FRAMES, label

ALT = "Text: the product of two chosen numbers"


def product(a, b=1):
    return f"<b>{a}*{b}</b>"


def frames_of(page):
    return re.findall(r'<div class="minillm-frame"( hidden)?>(.*?)</div>', page, re.DOTALL)


def test_frames_are_the_cartesian_product_in_order_first_one_shown():
    page = explore(product, alt=ALT, a=[1, 2, 3], b=["x", "y"]).html
    assert [text for _, text in frames_of(page)] == [
        f"<b>{a}*{b}</b>" for a in (1, 2, 3) for b in ("x", "y")
    ]
    assert [hidden for hidden, _ in frames_of(page)] == [""] + [" hidden"] * 5


def test_numbers_get_a_slider_and_words_a_menu():
    page = explore(product, alt=ALT, a=[0.5, 1, 10_000], b=["x", "y"]).html
    slider = re.search(r'<input type="range"[^>]*>', page).group()
    assert 'max="2"' in slider
    assert 'aria-valuetext="0.5"' in slider
    assert 'value="0"' in slider
    assert "<output>0.5</output>" in page
    assert "10,000" in page
    assert re.findall(r'<option value="\d"[^>]*>(.)</option>', page) == ["x", "y"]
    assert "<label><span>a</span>" in page


def test_start_chooses_the_frame_that_is_seen_first():
    page = explore(product, alt=ALT, start={"a": 2, "b": "y"}, a=[1, 2, 3], b=["x", "y"]).html
    seen = [text for hidden, text in frames_of(page) if not hidden]
    assert seen == ["<b>2*y</b>"]
    assert 'value="1"' in re.search(r'<input type="range"[^>]*>', page).group()
    assert "<output>2</output>" in page
    assert re.findall(r'<option value="(\d)" selected>', page) == ["1"]
    only = explore(product, alt=ALT, start={"b": "y"}, a=[1, 2], b=["x", "y"]).html
    assert [text for hidden, text in frames_of(only) if not hidden] == ["<b>1*y</b>"]


@pytest.mark.parametrize(("start", "said"), [({"c": 1}, "choices are a, b"), ({"a": 9}, "a=9")])
def test_a_start_that_is_no_choice_is_refused(start, said):
    with pytest.raises(ValueError, match=said):
        explore(product, alt=ALT, start=start, a=[1, 2], b=["x", "y"])


def test_booleans_are_a_menu_not_a_slider():
    page = explore(lambda causal: str(causal), alt=ALT, causal=[False, True]).html
    assert "<select" in page
    assert "range" not in page.split("</style>")[1]


def test_ids_depend_on_content():
    def key(**choices):
        return re.search(r'id="(explore-\w+)"', explore(product, alt=ALT, **choices).html).group(1)

    assert key(a=[1, 2]) == key(a=[1, 2])
    assert key(a=[1, 2]) != key(a=[1, 3])


def test_figures_become_images_with_their_setting_in_the_alt_text():
    def draw(height):
        fig, ax = subplots(width=2, height=1)
        ax.bar([0], [height])
        return fig

    page = explore(draw, alt=ALT, height=[1, 2]).html
    assert re.findall(r'alt="([^"]*)"', page) == [f"{ALT}; height 1", f"{ALT}; height 2"]
    assert "http" not in page
    assert len(page) < 40_000


def test_limits_and_mistakes_are_explained():
    with pytest.raises(ValueError, match="one or two non-empty lists"):
        explore(product, alt=ALT)
    with pytest.raises(ValueError, match="one or two non-empty lists"):
        explore(product, alt=ALT, a=[])
    with pytest.raises(ValueError, match="frames are too many"):
        explore(product, alt=ALT, a=range(MAX_FRAMES + 1))
    with pytest.raises(ValueError, match="use fewer choices"):
        explore(lambda a: "x" * 1_000_000, alt=ALT, a=[1, 2])
    with pytest.raises(ValueError, match="says too little"):
        explore(product, alt="plot", a=[1])
    with pytest.raises(TypeError, match="return a matplotlib Figure"):
        explore(lambda a: 3, alt=ALT, a=[1])


def test_without_a_kernel_the_bundle_is_html_and_text():
    bundle = explore(product, alt=ALT, a=[1, 2])._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}


def test_in_a_kernel_widgets_draw_each_setting_afresh(monkeypatch):
    pytest.importorskip("ipywidgets")
    import IPython

    from minillm.viz.explore import live

    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    box = live(product, ALT, {"a": [1, 2, 3], "b": ["x", "y"]})
    first, second, picture = box.children
    assert picture.value == "<b>1*x</b>"
    started = live(product, ALT, {"a": [1, 2, 3], "b": ["x", "y"]}, {"a": 1, "b": 1})
    assert started.children[-1].value == "<b>2*y</b>"
    first.value, second.value = 2, 1
    assert picture.value == "<b>3*y</b>"
    shown = explore(product, alt=ALT, a=[1, 2])
    assert "application/vnd.jupyter.widget-view+json" in shown._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert "application/vnd.jupyter.widget-view+json" not in shown._repr_mimebundle_()


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (2, "2"), (2.0, "2"), (10_000, "10,000"), (True, "True")]
)
def test_label(value, text):
    assert label(value) == text
