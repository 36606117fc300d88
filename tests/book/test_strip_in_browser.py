"""A token strip in a real browser: a selection is the text, and a token stays in one piece."""

import pytest

from minillm.viz import token_strip

TEXT = (
    'The unhappiest tokenizers can\'t spell "strawberry" in 今天 or\tcode:\n\n    return x <= 1\n'
)


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    yield page
    page.close()


def test_selecting_gives_the_text_and_tokens_do_not_break(page):
    pieces = [TEXT[i : i + 4].encode() for i in range(0, len(TEXT), 4)]
    page.set_content(token_strip(pieces, list(range(len(pieces)))).html)
    page.locator(".minillm-tokens").evaluate("n => getSelection().selectAllChildren(n)")
    assert page.evaluate("getSelection().toString()").strip() == TEXT.strip()
    heights = page.locator(".tok").evaluate_all("t => t.map(x => x.getClientRects().length)")
    assert set(heights) == {1}
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
