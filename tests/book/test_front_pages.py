"""The front pages say what is so: the cover's numbers, the bibliography, the terms, the sizes."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from minillm.assets import ASSETS, GROUPS, info

BOOK = Path(__file__).resolve().parents[2] / "book"
ROOT = BOOK.parent


@pytest.fixture(scope="module")
def draw_cover():
    """The drawing program, which is no module of the library."""
    import draw_cover

    return draw_cover


@pytest.fixture(scope="module")
def weights():
    """What the cover shows."""
    return json.loads((BOOK / "data" / "cover.json").read_text("utf8"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_cover_is_drawn_from_its_data(draw_cover, weights, theme):
    drawn = draw_cover.cover(weights, theme)
    assert drawn == (BOOK / "_static" / f"cover-{theme}.svg").read_text("utf8")


def test_the_cover_s_weights_are_causal_attention(draw_cover, weights):
    pieces, heads = weights["pieces"], weights["heads"]
    assert "".join(pieces) == draw_cover.SENTENCE
    for head in heads:
        assert [len(row) for row in head] == list(range(1, len(pieces) + 1))
        assert all(abs(sum(row) - 1) < 0.02 for row in head)


def test_the_caption_quotes_the_weights(draw_cover, weights):
    """The two numbers below the cover, and that one "it" in between finds nothing."""
    words, head = [p.strip() for p in weights["pieces"]], weights["heads"][draw_cover.HERO]
    first, middle, last = (i for i, word in enumerate(words) if word == "it")
    caption = " ".join((BOOK / "intro.md").read_text("utf8").split())
    assert f'puts {head[first][words.index("cat")]:.2f} of its attention on "cat"' in caption
    assert f'the last time {head[last][words.index("dog")]:.2f} on "dog"' in caption
    assert max(head[middle]) < 0.5


def bibliography() -> dict[str, str]:
    """The entries of references.bib by key."""
    text = (BOOK / "references.bib").read_text("utf8")
    entries = re.findall(r"^@\w+\{([^,\s]+),(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    assert max(Counter(key for key, _ in entries).values(), default=0) <= 1, "a key occurs twice"
    assert len(entries) == len(re.findall(r"^@", text, re.MULTILINE)), "an entry does not end"
    return dict(entries)


def test_every_reference_is_whole_and_cited():
    entries = bibliography()
    pages = [
        *(ROOT / "chapters").glob("*.md"),
        *BOOK.glob("*.md"),
        *(ROOT / "solutions").glob("*.md"),
    ]
    text = "\n".join(page.read_text("utf8") for page in pages)
    cited = {
        key.strip()
        for keys in re.findall(r"\{cite\w*(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    for key, body in entries.items():
        fields = dict(re.findall(r"^\s*(\w+)\s*=\s*(.+?),?\s*$", body, re.MULTILINE))
        assert {"author", "title", "year"} <= set(fields), f"{key} lacks author, title or year"
        year = re.search(r"\d{4}", fields["year"]).group()
        assert year in key, f"{key} is dated {year}"
        assert key in cited, f"no page cites {key}"
    assert cited <= set(entries), f"not in references.bib: {sorted(cited - set(entries))}"


def test_every_reference_can_be_found():
    """What a reader looks a work up by: its venue or address; a preprint's number has its year."""
    text = (BOOK / "references.bib").read_text("utf8")
    kinds = {key: kind for kind, key in re.findall(r"^@(\w+)\{([^,\s]+),", text, re.MULTILINE)}
    venue = {
        "article": {"journal"},
        "book": {"publisher"},
        "inproceedings": {"booktitle"},
        "incollection": {"booktitle"},
        "techreport": {"institution"},
        "phdthesis": {"school"},
        "manual": {"organization", "url"},
        "misc": {"url", "doi"},
    }
    for key, body in bibliography().items():
        fields = dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.+)\},?\s*$", body, re.MULTILINE))
        kind = kinds[key]
        assert venue[kind] & set(fields), f"{key}: @{kind} needs {' or '.join(venue[kind])}"
        if kind == "article" and "volume" in fields:
            assert "pages" in fields, f"{key}: the volume is not printed without pages"
        journal = fields.get("journal", "")
        if "arxiv" in journal.lower():
            number = re.fullmatch(r"arXiv preprint arXiv:(\d\d)(\d\d)\.\d{4,5}", journal)
            assert number, f"{key}: write {journal!r} as arXiv preprint arXiv:1706.03762"
            assert "20" + number[1] == fields["year"], f"{key}: {journal} is of 20{number[1]}"
            assert 1 <= int(number[2]) <= 12, f"{key}: {journal} has no such month"
        bare = re.search(r"(?<!\{)\bTransformers?\b(?!\})", fields["title"])
        assert not bare, f"{key}: titles are printed in lower case; write {{{bare.group()}}}"


def test_no_title_occurs_twice():
    titles = [
        re.sub(r"[^a-z0-9]", "", re.search(r"\btitle\s*=\s*(.+)", body).group(1).lower())
        for body in bibliography().values()
    ]
    assert [title for title, n in Counter(titles).items() if n > 1] == []


def test_glossary_terms_are_bilingual_and_placed():
    """Each entry names a chapter; the English term comes first, no term twice."""
    text = (BOOK / "glossary.md").read_text("utf8")
    entries, terms = 0, Counter()
    for block in re.findall(r"```\{glossary\}\n(.*?)```", text, re.DOTALL):
        for entry in re.split(r"\n\s*\n", block.strip()):
            names = [line for line in entry.splitlines() if not line.startswith("  ")]
            assert re.match(r"[A-Za-z]", names[0]), entry
            assert re.search(r"\{chapter\}`\d+`$", entry), f"{names[0]} names no chapter"
            terms.update(name.lower() for name in names)
            entries += 1
    chinese = [term for term in terms if re.search(r"[\u4e00-\u9fff]", term)]
    assert entries > 80 and len(chinese) > 0.9 * entries
    assert [term for term, n in terms.items() if n > 1] == []


def test_the_set_up_page_knows_the_sizes():
    text = (BOOK / "setup.md").read_text("utf8")
    download = sum(info(name).download for name in GROUPS["chapters"]) / 1e6
    stated = float(re.search(r"assets chapters` \(about (\d+) MB to download", text).group(1))
    assert abs(stated - download) < 0.1 * download


@pytest.mark.parametrize("name", ASSETS)
def test_the_set_up_page_lists_every_asset_with_its_license(name):
    asset = info(name)
    row = f"| `{name}` | {asset.note} | {asset.license} | `{asset.requirement}` |"
    assert row in (BOOK / "setup.md").read_text("utf8"), f"add to book/setup.md: {row}"
