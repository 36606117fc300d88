"""Every built page, read as HTML: links and anchors hold, pictures say what they show."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from course import ROOT, Course

HTML = ROOT / "book" / "_build" / "html"
PAGES = sorted(
    p.relative_to(HTML).as_posix()
    for folder in ("book", "chapters", "exercises")
    for p in HTML.glob(f"{folder}/**/*.html")
)
COURSE = Course(ROOT)


class Parts(HTMLParser):
    """The links, ids and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.images, self.loaded, self.frames = [], [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        got = dict(attrs)
        if got.get("id"):
            self.ids.append(got["id"])
        if tag == "a" and got.get("href"):
            self.links.append(got["href"])
        if tag == "a" and got.get("name"):
            self.ids.append(got["name"])
        if tag == "img":
            self.images.append(got)
        if tag in ("img", "script", "iframe") and got.get("src"):
            self.loaded.append(got["src"])
        if tag == "link" and got.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.loaded.append(got.get("href", ""))


@functools.cache
def parts(name):
    return Parts((HTML / name).read_text("utf8"))


@pytest.fixture(autouse=True)
def _built(html):
    """Skip, or fail in CI, where there is no built book."""


def test_every_chapter_and_module_has_its_page():
    assert {f"chapters/{c.stem}.html" for c in COURSE.written} <= set(PAGES)
    assert {f"book/reference/{module}.html" for module in COURSE.modules} <= set(PAGES)


def resolved(name, link):
    """Return the file and the anchor that a local link means."""
    path, anchor = urldefrag(link)
    target = (HTML / name).parent / unquote(urlparse(path).path) if path else HTML / name
    return Path(target).resolve(), unquote(anchor)


@pytest.mark.parametrize("name", PAGES)
def test_links_and_anchors_hold(name):
    broken = []
    for link in parts(name).links:
        if urlparse(link).scheme or link in ("#", "javascript:void(0)"):
            continue
        target, anchor = resolved(name, link)
        if not target.is_file():
            broken.append(link)
        elif anchor and target.suffix == ".html":
            there = target.relative_to(HTML.resolve()).as_posix()
            if anchor not in parts(there).ids:
                broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", PAGES)
def test_everything_loaded_lies_beside_the_page(name):
    for link in parts(name).loaded:
        if not link.startswith("data:"):
            assert not urlparse(link).scheme, f"{link} is on another machine"
            assert resolved(name, link)[0].is_file(), link


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_says_what_it_shows(name):
    for image in parts(name).images:
        alt = image.get("alt") or ""
        source = image.get("src", "")[:60]
        assert alt.strip(), f"{source} has no alternative text"
        if "minillm-figure" in image.get("class", ""):
            assert len(alt.split()) >= 4, f"{source}: {alt!r} says too little"


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_unique(name):
    ids = [i for i in parts(name).ids if i.startswith("explore-") or re.match(r"[qiack]-\d", i)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("stem", [c.stem for c in COURSE.written])
def test_a_chapter_and_the_api_link_to_each_other(stem):
    page = f"chapters/{stem}.html"
    text = (HTML / page).read_text("utf8")
    assert "sphinx-codeautolink-a" in text, "no name in a code cell is a link"
    there = {resolved(page, link)[0].name for link in parts(page).links}
    for module, homes in COURSE.homes.items():
        if homes == [f"chapters/{stem}"]:
            reference = f"book/reference/{module}.html"
            back = {resolved(reference, link)[0].name for link in parts(reference).links}
            assert f"{stem}.html" in back, f"{module} does not say where it is taught"
            assert f"{module}.html" in there, f"no link from the chapter to {module}"


@pytest.mark.parametrize("stem", [c.stem for c in COURSE.written])
def test_colab_button_opens_the_notebook(stem):
    links = [link for link in parts(f"chapters/{stem}.html").links if "colab.research" in link]
    end = f"/blob/{COURSE.branch}/chapters/{stem}.ipynb"
    assert links
    assert all(link.endswith(end) for link in links), links
    edits = [link for link in parts(f"chapters/{stem}.html").links if "/edit/" in link]
    assert edits
    assert all(link.endswith(f"chapters/{stem}.md") for link in edits), edits
