"""Write the table of model families: one row a model, a source beside every cell."""

import html
import re
from functools import cache
from pathlib import Path

import yaml
from course import Course

# The columns in order: name in the data, heading, what a cell of it says.
COLUMNS = {
    "who": ("who", "the group that trained the model"),
    "released": ("when", "year and month of the paper, announcement or model card named beside it"),
    "parameters": ("parameters", "of the size named in the first column, embeddings included "
                   "unless said otherwise; for experts all of them, then those one token uses"),
    "tokens": ("training tokens", "seen in pretraining; words or bytes where the maker counted "
               "those"),
    "context": ("context", "the longest input in tokens that the maker states for this release"),
    "norm": ("norm", "kind, and place relative to the sublayer: before it (pre), after it (post), "
             "or both"),
    "position": ("positions", "how order enters"),
    "activation": ("activation", "of the feed-forward layer; SwiGLU and GeGLU are gated"),
    "attention": ("attention", "causal unless said otherwise; MHA: as many key and value heads as "
                  "query heads, GQA: fewer, MQA: one, MLA: keys and values from one latent"),
    "experts": ("experts", "dense, or how many experts there are and how many a token uses"),
    "license": ("license", "of the weights"),
}  # fmt: skip
SIDES = {"East": "a maker in China", "West": "a maker elsewhere, Abu Dhabi and Tel Aviv included"}
UNITS = {"": 1, "K": 1024, "M": 1e6, "B": 1e9, "T": 1e12}
COUNT = re.compile(r"(?:about |over )?([\d,]+(?:\.\d+)?)(?: ([KMBT])\b)?(?![\d ]*[GT]B\b)")
UNIT, NARROW = re.compile(r"(\d) ([KMBT]|GB)\b"), "\\1\u00a0\\2"  # units stay with their numbers
UNKNOWN = "unpublished"
ENTRY = re.compile(r"^@\w+\{([^,\s]+),(.*?)^\}", re.MULTILINE | re.DOTALL)

HEAD = """---
html_theme.sidebar_secondary.remove: true
---
# Model families

<!-- Made by `make sync` from `book/data/families.yml`; edit that file instead. -->
{count} models of East and West, from {first} to {last}, each in one row. The small number after a
cell leads to the line below the table that says where it was read: the work, and the place in it.
A heading sorts by its column, and pressed again turns the order around. {unknown} cells say
"{word}": the maker kept that to itself, and the line below names the work that leaves it out.

East means {east}; West, {west}. Where a family has several sizes or versions, the first column
names the one that the row describes. K stands for 1,024, M for a million, B for a
billion, T for a trillion.

The place in {{cite:t}}`wolf2020transformers` is a file below `src/transformers` and a name in it,
in version {version}; the tests check that it is there.

"""


@cache
def load(path: Path) -> list[dict]:
    """Return the models of `families.yml`, in the order of their release."""
    models = yaml.safe_load(path.read_text("utf8"))["models"]
    return sorted(models, key=lambda model: (str(model["cells"]["released"][0]), model["model"]))


def problems(models: list[dict], references: dict[str, str]) -> list[str]:
    """Return what is wrong with the data: a cell or source that is missing, unknown or empty."""
    found = []
    for model in models:
        name = model.get("model", "a model without a name")
        if set(model) != {"model", "side", "cells"}:
            found.append(f"{name}: has {sorted(model)}, not model, side and cells")
            continue
        if model["side"] not in SIDES:
            found.append(f"{name}: side is {model['side']!r}, not one of {sorted(SIDES)}")
        for missing in COLUMNS.keys() - model["cells"].keys():
            found.append(f"{name}: no {missing}")
        for extra in model["cells"].keys() - COLUMNS.keys():
            found.append(f"{name}: {extra} is no column")
        for column, cell in model["cells"].items():
            found += [f"{name}, {column}: {why}" for why in wrong_cell(column, cell, references)]
    names = [model.get("model") for model in models]
    return found + [f"{name} occurs twice" for name in set(names) if names.count(name) > 1]


def wrong_cell(column: str, cell: list, references: dict[str, str]) -> list[str]:
    """Return what is wrong with a cell: it should be value, key of the source, place in it."""
    if not (isinstance(cell, list) and len(cell) == 3 and all(isinstance(x, str) for x in cell)):
        return [f"{cell!r} is not [value, source, place], three strings"]
    value, source, place = cell
    found = [] if source in references else [f"{source!r} is not in references.bib"]
    found += [f"{part!r} is empty" for part in (value, place) if not part.strip()]
    if column == "released" and not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", value):
        found.append(f"{value!r} is not a year and month such as 2019-02")
    if column in ("parameters", "context") and value != UNKNOWN and not COUNT.match(value):
        found.append(f"{value!r} does not start with a number such as 1.5 B or 2,048")
    return found


def references(course: Course) -> dict[str, str]:
    """Return what a mark shows of each entry of references.bib: first author or maker, and year."""
    text = (course.root / "book" / "references.bib").read_text("utf8")
    return {key: short(body) for key, body in ENTRY.findall(text)}


def short(body: str) -> str:
    """Return `Devlin et al., 2019` for an entry of the bibliography."""
    fields = dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.+)\},?\s*$", body, re.MULTILINE))
    authors = re.sub(r"\\.|[{}]", "", fields["author"]).split(" and ")
    name = authors[0].split(",")[0].strip()
    more = "" if len(authors) == 1 else " et al."
    if len(authors) == 2 and authors[1] != "others":
        more = f" and {authors[1].split(',')[0].strip()}"
    return f"{name}{more}, {fields['year']}"


def slug(model: str, column: str = "") -> str:
    """Return the anchor of a model's cell: `gpt-2-1-5-b-context`."""
    return re.sub(r"[^a-z0-9]+", "-", f"{model} {column}".lower()).strip("-")


def sort_key(column: str, value: str) -> str:
    """Return what a column is sorted by: a number where it starts with one, else the words."""
    if column in ("parameters", "tokens", "context"):
        match = COUNT.match(value)
        return f"{float(match[1].replace(',', '')) * UNITS[match[2] or '']:.0f}" if match else ""
    return "" if value == UNKNOWN else value.lower()


def page(course: Course) -> str | None:
    """Return the page, or None where there is no data."""
    path = course.root / "book" / "data" / "families.yml"
    if not path.exists():
        return None
    models, known = load(path), references(course)
    wrong = problems(models, known)
    if wrong:
        raise ValueError("book/data/families.yml: " + "; ".join(wrong))
    unknown = sum(m["cells"][c][0] == UNKNOWN for m in models for c in COLUMNS)
    columns = "\n".join(f"- **{title}**: {what}." for title, what in COLUMNS.values())
    head = HEAD.format(
        count=len(models), unknown=unknown, word=UNKNOWN, version=version(course),
        first=models[0]["cells"]["released"][0][:4], last=models[-1]["cells"]["released"][0][:4],
        east=SIDES["East"], west=SIDES["West"],
    )  # fmt: skip
    meaning = ["## What the columns say", "", columns, ""]
    return "\n".join([head, *table(models, known), *meaning, *sources(models)]) + "\n"


def version(course: Course) -> str:
    """Return the version of transformers that constraints.txt pins."""
    pins = (course.root / "constraints.txt").read_text("utf8")
    return re.search(r"^transformers==(\S+)", pins, re.MULTILINE).group(1)


def table(models: list[dict], known: dict[str, str]) -> list[str]:
    """Return the sortable table as HTML; a number after each cell leads to its source."""
    titles = ["model", "side", *(title for title, _ in COLUMNS.values())]
    heads = "".join(f'<th scope="col">{title}</th>' for title in titles)
    lines = ['<div class="families" data-filter>', '<table class="sortable">']
    lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    numbers: dict[str, int] = {}
    for model in models:
        name = html.escape(model["model"])
        lines += [f'<tr><th scope="row"><a href="#{slug(model["model"])}">{name}</a></th>']
        lines += [f"<td>{model['side']}</td>"]
        for column in COLUMNS:
            value, source, place = model["cells"][column]
            number = numbers.setdefault(source, len(numbers) + 1)
            key = html.escape(sort_key(column, value))
            where = html.escape(f"{known[source]}: {place}")
            mark = f'<a class="source" href="#{slug(model["model"], column)}" title="{where}">'
            cell = f"{UNIT.sub(NARROW, html.escape(value))}{mark}{number}</a>"
            lines += [f'<td class="{column}" data-sort="{key}">{cell}</td>']
        lines += ["</tr>"]
    return [*lines, "</tbody></table></div>", ""]


def sources(models: list[dict]) -> list[str]:
    """Return for each model where its cells were read, in the order of the columns."""
    lines = ["## Where each cell was read", "", ":::{div} family-sources", ""]
    for model in models:
        lines += [f'<a id="{slug(model["model"])}"></a>', "", f"**{model['model']}**", ""]
        for column, (title, _) in COLUMNS.items():
            value, source, place = model["cells"][column]
            anchor = f'<a id="{slug(model["model"], column)}"></a>'
            lines += [f"- {anchor}{title}: {value}. {{cite:t}}`{source}`, {place}"]
        lines += [""]
    return [*lines, ":::"]
