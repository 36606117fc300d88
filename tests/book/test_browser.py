"""The built book in a browser: from disk and over http, light and dark, wide and on a phone."""

import re
from pathlib import Path

import pytest
from course import ROOT, Course

HTML = ROOT / "book" / "_build" / "html"
SHOTS = Path(__file__).parent / "screenshots"
COURSE = Course(ROOT)
PAGES = sorted(
    p.relative_to(HTML).as_posix()
    for folder in ("book", "chapters", "exercises")
    for p in HTML.glob(f"{folder}/**/*.html")
)
MAIN = [name for name in PAGES if "reference/" not in name]
CHAPTERS = [f"chapters/{c.stem}.html" for c in COURSE.written]
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}

# Text whose contrast with what lies behind it is below 4.5 (WCAG AA); large text below 3.
FAINT = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = (c) => {
    const l = c.slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2];
  };
  const behind = (node) => {
    const stack = [];
    for (let n = node; n; n = n.parentElement) {
      const c = rgba(getComputedStyle(n).backgroundColor); stack.push(c); if (c[3] >= 1) break;
    }
    return stack.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.querySelector('article'), 4);
  const found = new Set();
  for (let text; (text = walker.nextNode());) {
    const node = text.parentElement;
    const skipped = node.closest('svg, mjx-container, [hidden], .headerlink');
    if (!text.textContent.trim() || !node.offsetParent || skipped) continue;
    const style = getComputedStyle(node), paper = behind(node);
    const ink = over(rgba(style.color), paper);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => x - y);
    const ratio = (b + 0.05) / (a + 0.05), large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5))
      found.add(`${ratio.toFixed(1)} ${node.tagName}.${node.className}: `
        + text.textContent.trim().slice(0, 40));
  }
  return [...found];
}"""
MATH = """() => ({
  asked: document.querySelectorAll('article .math').length,
  drawn: document.querySelectorAll('article mjx-container').length,
  wrong: document.querySelectorAll('mjx-merror, [data-mjx-error]').length})"""
SIDEWAYS = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room + 1) return [];
  return [...document.querySelectorAll('article *')]
    .filter((n) => n.getBoundingClientRect().right > room + 1)
    .slice(0, 5).map((n) => n.outerHTML.slice(0, 100));
}"""


@pytest.fixture(autouse=True)
def _built(html):
    """Skip, or fail in CI, where there is no built book."""


def healthy(visit, name):
    assert visit.errors == [], f"{name}: {visit.errors}"
    assert visit.remote == [], f"{name} asks other machines: {visit.remote}"


def test_every_page_opens_from_disk_and_fits_a_phone(visit, html):
    phone = visit(f"file://{html}", viewport=PHONE)
    for name in PAGES:
        page = phone.go(name)
        healthy(phone, name)
        assert page.evaluate(SIDEWAYS) == [], f"{name} scrolls sideways on a phone"
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"] + 1, name
        math = page.evaluate(MATH)
        assert math["drawn"] >= math["asked"], f"{name}: {math}"
        assert math["wrong"] == 0, f"{name}: a formula does not parse"


def test_every_api_page_documents_its_module(html):
    """A page goes empty where a package hands on a function that is named like the module."""
    for page in (html / "book" / "reference").glob("*.html"):
        if page.stem != "index":
            assert f'id="minillm.{page.stem}.' in page.read_text("utf8"), f"{page.stem} is empty"


def test_main_pages_open_over_http(visit, site):
    wide = visit(site, viewport=WIDE)
    for name in [*MAIN, "genindex.html"]:
        wide.go(name)
        healthy(wide, name)
    wide.page.goto(f"{site}/index.html")
    wide.page.wait_for_url("**/book/intro.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(visit, html, scheme):
    wide = visit(f"file://{html}", viewport=WIDE, color_scheme=scheme)
    faint = {}
    for name in [*MAIN, "book/reference/nn.attention.html"]:
        page = wide.go(name)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        if found := page.evaluate(FAINT):
            faint[name] = found[:8]
    assert faint == {}


ARROWS = {True: "ArrowLeft", False: "ArrowRight"}  # a figure may start at the end of its slider


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_interactive_figure_changes_its_picture(visit, html, name):
    page = visit(f"file://{html}", viewport=WIDE).go(name)
    figures = page.locator(".minillm-explore")
    assert figures.count() >= 1, "a chapter has an interactive figure"
    for i in range(figures.count()):
        figure = figures.nth(i)
        shown = figure.locator(".minillm-frame:not([hidden])")
        for j in range(figure.locator(".minillm-choice").count()):
            control = figure.locator(".minillm-choice").nth(j)
            before, label = shown.inner_html(), control.get_attribute("aria-valuetext")
            control.focus()
            last = control.evaluate("c => c.type === 'range' && c.value === c.max")
            page.keyboard.press("ArrowDown" if label is None else ARROWS[last])
            assert shown.count() == 1
            assert shown.inner_html() != before, f"{name}: control {j} of figure {i} does nothing"
            if label is not None:
                assert control.get_attribute("aria-valuetext") != label
                assert figure.locator("output").nth(0).is_visible()


@pytest.mark.parametrize("name", CHAPTERS)
def test_without_javascript_the_first_frame_is_shown(visit, html, name):
    page = visit(f"file://{html}", viewport=WIDE, java_script_enabled=False)
    page.page.goto(f"file://{html}/{name}")
    figure = page.page.locator(".minillm-explore").first
    assert figure.locator(".minillm-frame:visible").count() == 1
    assert "Without JavaScript" in figure.inner_text()


def test_search_finds_the_causal_mask(visit, html, site):
    for origin in (f"file://{html}", site):
        page = visit(origin, viewport=WIDE).go("search.html?q=causal+mask")
        page.wait_for_selector("#search-results li a", timeout=10_000)
        links = page.locator("#search-results li a").evaluate_all("a => a.map(x => x.href)")
        assert any("attention" in link for link in links), links


def test_the_theme_button_turns_the_page_dark(visit, html):
    page = visit(f"file://{html}", viewport=WIDE, color_scheme="light").go(MAIN[0])
    for _ in range(3):
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
        page.locator(".theme-switch-button:visible").first.click()
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", color)[:3])) < 80


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots_for_people(visit, html, scheme):
    SHOTS.mkdir(exist_ok=True)
    for kind, size in (("wide", WIDE), ("phone", PHONE)):
        reader = visit(f"file://{html}", viewport=size, color_scheme=scheme)
        for name in ["book/intro.html", *CHAPTERS]:
            page = reader.go(name)
            shot = SHOTS / f"{Path(name).stem}-{kind}-{scheme}.png"
            page.screenshot(path=shot, full_page=True)
            assert shot.stat().st_size > 20_000
