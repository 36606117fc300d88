import csv

from minillm.exercises import report
from minillm.exercises.grade import Mark, Row


def test_names_of_pages_are_safe_and_distinct():
    names = ["a/b.ipynb", "a-b.ipynb", "../../etc/x.ipynb", "ä.ipynb", "ö.ipynb", "index.ipynb"]
    pages = report.page_names(names)
    assert len({page.lower() for page in pages}) == len(names)
    assert "index.html" not in pages
    assert all("/" not in page and not page.startswith(".") for page in pages)


def test_clean_text_can_be_written_anywhere():
    text = report.clean("a\ud800\x00\x1b[2Jé\n")
    assert text.encode("utf8")
    assert "\x1b" not in text
    assert text.endswith("é\n")


def test_formulas_are_disarmed():
    assert report.cell("=1+1") == "'=1+1"
    assert report.cell("@x") == "'@x"
    assert report.cell(-1.0) == -1.0
    assert report.cell("plain") == "plain"


def test_sets_share_a_table(tmp_path):
    rows = [
        Row("a.ipynb", "02_x", marks=[Mark("q1_a", 1.0, 2.0)]),
        Row("b.ipynb", "05_y", marks=[Mark("q1_b", 2.0, 2.0)]),
        Row("c.ipynb", status="not a notebook"),
    ]
    index = report.write(rows, tmp_path / "out", boxed=True)
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["02_x/q1_a"] for line in lines] == ["1.0", "", ""]
    assert [line["05_y/q1_b"] for line in lines] == ["", "2.0", ""]
    assert [float(line["score"]) for line in lines] == [1, 2, 0]
    assert "href='b.html'" in index.read_text("utf8")


def test_a_page_says_points_in_words_and_works_in_the_dark(tmp_path):
    row = Row("<i>.ipynb", "05_y", marks=[Mark("q1_b", 1.0, 2.0, ["a < b & c"])], errors=["<x>"])
    report.write([row], tmp_path, boxed=False)
    (page,) = (p for p in tmp_path.glob("*.html") if p.name != "index.html")
    text = page.read_text("utf8")
    assert "1 of 2" in text
    assert "color-scheme: light dark" in text
    assert "a &lt; b &amp; c" in text
    assert "&lt;x&gt;" in text
    assert "<i>" not in text
    assert "NO SANDBOX" in (tmp_path / "index.html").read_text("utf8")
