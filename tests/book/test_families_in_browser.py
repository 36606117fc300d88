"""The table of families in a browser: it sorts, filters, and its marks lead to their sources."""

import pytest
from course import ROOT

SCRIPT = (ROOT / "book" / "_static" / "sortable.js").read_text("utf8")
ROWS = (("b", "2", "x y"), ("a", "10", "y"), ("c", "", "x"), ("d", "9", "Z"))
TABLE = """<script>{script}</script><div data-filter><table class="sortable">
<thead><tr><th>name</th><th>size</th><th>note</th></tr></thead><tbody>{rows}</tbody></table></div>"""
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}


@pytest.fixture
def small(browser):
    """A page with one small table: sizes as data-sort, one of them unknown."""
    rows = "".join(
        f'<tr><th>{a}</th><td data-sort="{b}">{b or "unpublished"}</td><td>{c}</td></tr>'
        for a, b, c in ROWS
    )
    page = browser.new_page()
    page.set_content(TABLE.format(script=SCRIPT, rows=rows))
    yield page
    page.close()


def names(page):
    """The first cells of the rows that are seen, from top to bottom."""
    return page.locator("table.sortable tbody tr:visible th").all_inner_texts()


def press(page, heading):
    page.locator("thead button", has_text=heading).first.click()
    return names(page)


def test_numbers_sort_both_ways_and_the_unknown_stays_last(small):
    assert names(small) == ["b", "a", "c", "d"], "as written until a heading is pressed"
    assert press(small, "size") == ["b", "d", "a", "c"]
    assert press(small, "size") == ["a", "d", "b", "c"]
    assert press(small, "name") == ["a", "b", "c", "d"]
    assert press(small, "note") == ["c", "b", "a", "d"], "words, capitals among them"


def test_the_heading_says_how_it_is_sorted(small):
    heading = small.locator("thead th").nth(1)
    assert heading.get_attribute("aria-sort") is None
    press(small, "size")
    assert heading.get_attribute("aria-sort") == "ascending"
    press(small, "size")
    assert heading.get_attribute("aria-sort") == "descending"
    press(small, "name")
    assert heading.get_attribute("aria-sort") is None


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts(small, key):
    small.keyboard.press("Tab")  # the field that filters
    small.keyboard.press("Tab")
    small.keyboard.press(key)
    assert names(small) == ["a", "b", "c", "d"]


def test_the_field_leaves_rows_with_all_words(small):
    field, count = small.locator("input[type=search]"), small.locator("output")
    assert count.inner_text() == "4 of 4"
    field.fill("X")
    assert names(small) == ["b", "c"]
    field.fill("x y")
    assert names(small) == ["b"]
    assert count.inner_text() == "1 of 4"
    field.fill("nothing")
    assert names(small) == []
    field.fill("")
    assert press(small, "size") == ["b", "d", "a", "c"]


@pytest.fixture
def built(visit, html):
    """The page of the built book; skip, or fail in CI, where there is none."""
    visits = visit(f"file://{html}", viewport=WIDE)
    return visits.go("book/families.html")


def test_the_built_page_sorts_by_every_column(built):
    first = names(built)
    assert first[0] == "GPT-1"
    assert len(first) >= 30
    headings = built.locator("table.sortable thead button")
    assert headings.count() == 13
    for i in range(headings.count()):
        headings.nth(i).click()
        keys = built.locator("table.sortable tbody tr").evaluate_all(
            "(rows, i) => rows.map(r => r.cells[i].dataset.sort ?? r.cells[i].textContent.trim())",
            i,
        )
        known = [key for key in keys if key]
        assert all(keys[: len(known)]), "unpublished cells are last"
        if i in (4, 5, 6):
            assert [float(key) for key in known] == sorted(float(key) for key in known)
        if i == 3:
            assert known == sorted(known)


def test_the_built_page_finds_a_family(built):
    built.locator(".sortable-filter input").fill("alibi east")
    assert names(built) == ["Baichuan-13B"]


def test_a_mark_leads_to_its_source(built):
    mark = built.locator("table.sortable tbody tr", has_text="GPT-2").locator("td.context a.source")
    assert "Radford et al., 2019: Section 2.3" in mark.get_attribute("title")
    mark.click()
    line = built.locator(f"li:has({built.evaluate('location.hash')})")
    assert "context: 1,024." in line.inner_text()
    box = line.bounding_box()
    assert 50 < box["y"] < WIDE["height"], "below the bar at the top, in sight"
    line.locator("a[href*='bibliography']").click()
    built.wait_for_url("**/bibliography.html*")  # until it has loaded
    assert "unsupervised multitask learners" in built.content().lower()


def test_without_javascript_the_table_is_whole(visit, html):
    page = visit(f"file://{html}", viewport=WIDE, java_script_enabled=False).page
    page.goto(f"file://{html}/book/families.html")
    assert page.locator("table.sortable tbody tr:visible").count() >= 30
    assert page.locator(".sortable-filter").count() == 0


def test_on_a_phone_the_names_stay_in_sight(visit, html):
    page = visit(f"file://{html}", viewport=PHONE).go("book/families.html")
    box = page.locator(".families")
    box.evaluate("node => node.scrollIntoView()")
    box.evaluate("node => { node.scrollLeft = 900; }")
    name = page.locator("table.sortable tbody th").first.bounding_box()
    assert 0 <= name["x"] < 60
    assert name["width"] < 160
