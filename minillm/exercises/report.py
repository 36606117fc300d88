"""Write what was graded: a table in CSV, an overview and a page per submission in HTML.

Everything that comes from a learner is escaped, and pages load nothing.
"""

import csv
import html
import re
from pathlib import Path
from typing import Any

SANDBOXED = "Sandbox: bubblewrap. Submissions see no network, no files of yours, no solutions."
UNBOXED = (
    "NO SANDBOX: bubblewrap is missing or not allowed here, so each submission runs as you, held\n"
    "back only by time and memory limits and by what its worker refuses. Install bubblewrap, or\n"
    "grade only people you trust."
)
STYLE = """
:root { color-scheme: light dark; --line: #8886; --good: #1a7f37; --bad: #b3261e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } .score { font-size: 1.25rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; }
td { border-top: 1px solid var(--line); }
td.points { white-space: nowrap; } .wide { overflow-x: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 .4rem; font: inherit; }
.badge { color: #fff; border-radius: 4px; padding: 1px 8px; white-space: nowrap; }
.full { background: var(--good); } .none { background: var(--bad); } .part { background: #8a5300; }
@media (max-width: 40rem) {
  th { display: none; } td { display: block; border: 0; padding: .2rem 0; }
  tr { display: block; border-top: 1px solid var(--line); padding: .6rem 0; }
}
.note { border-left: 4px solid var(--line); padding-left: .8rem; }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def clean(text: str) -> str:
    """`text` without what no file or terminal takes: control characters, lone surrogates."""
    shown = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return shown.encode("utf8", "replace").decode("utf8")


def write(rows: list, out: Path, *, boxed: bool) -> Path:
    """Write `scores.csv`, `index.html` and the pages below `out`; return the path of the index."""
    out.mkdir(parents=True, exist_ok=True)
    pages = page_names([row.name for row in rows])
    table(rows, out / "scores.csv")
    for row, page in zip(rows, pages, strict=True):
        text = document(row.name, learner_page(row))
        (out / page).write_text(text, encoding="utf8")
    index = out / "index.html"
    index.write_text(document("Grades", overview(rows, pages, boxed)), encoding="utf8")
    return index


def page_names(names: list[str]) -> list[str]:
    """A file name for each submission's page: safe, and no two alike."""
    taken, pages = {"index.html"}, []
    for name in names:
        stem = (
            re.sub(r"[^A-Za-z0-9_-]+", "-", name.removesuffix(".ipynb")).strip("-")[:80] or "page"
        )
        page, n = f"{stem}.html", 1
        while page.lower() in taken:
            n += 1
            page = f"{stem}-{n}.html"
        taken.add(page.lower())
        pages.append(page)
    return pages


def table(rows: list, path: Path) -> None:
    """Write one line per submission and one column per question of every set that occurs."""
    questions = list(dict.fromkeys((r.slug, m.question) for r in rows for m in r.marks))
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        fixed = ["submission", "set", "status", "score", "possible", "seconds"]
        writer.writerow([*fixed, *(f"{slug}/{q}" for slug, q in questions), "look at"])
        for row in rows:
            points = {(row.slug, mark.question): mark.points for mark in row.marks}
            line = [row.name, row.slug, row.status, row.score, row.possible, row.seconds]
            line += [points.get(question, "") for question in questions]
            writer.writerow([cell(value) for value in [*line, " ".join(row.suspicious)]])


def cell(value: Any) -> Any:
    """`value` so that no spreadsheet takes a learner's text for a formula."""
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return "'" + value if risky else value


def document(title: str, body: str) -> str:
    """A whole HTML page."""
    return PAGE.format(title=html.escape(title), style=STYLE, body=body)


def learner_page(row: Any) -> str:
    """What a learner gets to read: the score, and for every question points and messages."""
    parts = [f"<h1>{html.escape(row.name)}</h1>"]
    parts.append(f"<p class='score'>{badge(row.score, row.possible)} {html.escape(row.slug)}</p>")
    if row.status != "graded":
        parts.append(f"<p class='note'>{html.escape(row.status)}</p>")
    if row.marks:
        lines = "".join(map(question_row, row.marks))
        head = "<tr><th>Question</th><th>Points</th><th>What the checks say</th></tr>"
        parts.append(f"<div class='wide'><table>{head}{lines}</table></div>")
    if row.errors:
        parts.append("<h2>Cells that stopped with an error</h2>")
        parts += [f"<pre>{html.escape(error)}</pre>" for error in row.errors]
    return "\n".join(parts)


def question_row(mark: Any) -> str:
    """One question's line in the learner's table."""
    right = mark.possible and mark.points >= mark.possible
    said = mark.messages or (["all checks passed"] if right else ["not checked"])
    text = "".join(f"<pre>{html.escape(message)}</pre>" for message in said)
    name, points = html.escape(mark.question), badge(mark.points, mark.possible)
    cells = f"<td><code>{name}</code></td><td class='points'>{points}</td><td>{text}</td>"
    return f"<tr>{cells}</tr>\n"


def badge(points: float, possible: float) -> str:
    """Points of possible points, colored; the numbers say the same without color."""
    kind = "none" if not points else "full" if points >= possible else "part"
    return f"<span class='badge {kind}'>{points:g} of {possible:g}</span>"


def overview(rows: list, pages: list[str], boxed: bool) -> str:
    """The instructor's page: every submission with a link, and what a person should look at."""
    lines = []
    for row, page in zip(rows, pages, strict=True):
        link = f"<a href='{html.escape(page)}'>{html.escape(row.name)}</a>"
        cells = [link, html.escape(row.slug), badge(row.score, row.possible)]
        cells += [html.escape(row.status), html.escape(" ".join(row.suspicious))]
        lines.append("<tr>" + "".join(f"<td>{text}</td>" for text in cells) + "</tr>")
    names = ("Submission", "Set", "Score", "Status", "Look at")
    head = "<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    note = (
        "Checks and learner share a process: cheating is laborious, not impossible. "
        "Read the notebooks that have something under “Look at”."
    )
    said = f"<p class='note'>{SANDBOXED if boxed else UNBOXED}</p><p class='note'>{note}</p>"
    return (
        f"<h1>Grades</h1>{said}<div class='wide'><table>{head}"
        + "\n".join(lines)
        + "</table></div>"
    )
