"""`show` gives the real source, captioned, and says clearly when there is none."""

import functools
import inspect

import pytest

from minillm.viz import plots, show, style


def test_source_is_the_files_own_text():
    listing = show(plots.attention_map)
    assert listing.text == inspect.getsource(plots.attention_map).rstrip()
    assert 'Float[Tensor, "t s"]' in listing.text
    assert listing.name == "minillm.viz.plots.attention_map"
    assert listing.path == "minillm/viz/plots.py"


def test_markdown_is_caption_and_fence():
    text = show(style.HTML)._repr_markdown_()
    caption, _, rest = text.partition("\n\n")
    assert caption == "`minillm.viz.style.HTML`, from `minillm/viz/style.py`:"
    assert rest.startswith("```python\n@dataclass")
    assert rest.endswith("\n```")


def test_fence_is_longer_than_any_in_the_source():
    assert show(test_fence_has_a_fence)._repr_markdown_().count("````") == 2


def test_fence_has_a_fence():
    assert "```" in show(test_fence_has_a_fence).text


def test_method_is_dedented_and_wrapper_looked_through():
    assert show(show(plots).__class__._repr_markdown_).text.startswith("def _repr_markdown_")

    @functools.wraps(style.png)
    def wrapped(*args):
        return style.png(*args)

    assert show(wrapped).text == show(style.png).text


def test_package_path_of_a_package():
    import minillm.viz

    assert show(minillm.viz).path == "minillm/viz/__init__.py"


@pytest.mark.parametrize("thing", [3, "text", style.HTML("<b>", "b"), None])
def test_instances_are_refused_with_the_way_out(thing):
    with pytest.raises(TypeError, match=r"pass the class itself"):
        show(thing)


@pytest.mark.parametrize("thing", [len, int, dict.get])
def test_built_ins_have_no_source(thing):
    with pytest.raises(TypeError, match=r"no Python source"):
        show(thing)


def test_a_triton_kernel_shows_the_function_it_was_made_from():
    from minillm.kernels.tiles import take

    assert "def take(" in show(take).text
    assert show(take).name == "minillm.kernels.tiles.take"
