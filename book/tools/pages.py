"""Write the pages made from the curriculum: the map, the questions, the API, the contents."""

import re
from collections import defaultdict
from pathlib import Path

import benchmarks
import families
import parity
import yaml
from course import Chapter, Course

TOOLS = {"benchmarks": benchmarks, "families": families, "parity": parity}
MAP = re.compile(r"(<!-- map: made by make sync -->\n).*?(<!-- /map -->)", re.DOTALL)
MADE = "Made by `make sync`; edit `book/curriculum.yml` instead."


def planned(course: Course) -> dict[Path, str]:
    """Return every made page's path and content."""
    book = course.root / "book"
    files = {book / "interview.md": interview(course), book / "_toc.yml": contents(course)}
    files[book / "reference" / "index.md"] = reference_index(course)
    for module in course.modules:
        files[book / "reference" / f"{module}.md"] = reference_page(course, module)
    made = {name: tool.page(course) for name, tool in TOOLS.items()}
    files |= {book / f"{name}.md": text for name, text in made.items() if text}
    intro = book / "intro.md"
    if intro.exists():
        new = course_map(course)
        files[intro] = MAP.sub(lambda m: f"{m.group(1)}{new}{m.group(2)}", intro.read_text("utf8"))
    return files


def course_map(course: Course) -> str:
    """Return the map of the forty chapters, a card for each part; written chapters are links."""
    shown = [chapter for chapter in course.chapters if course.shown(chapter)]
    said = f"{len(shown)} of {len(course.chapters)} chapters are written"
    links = (f"{c.number}. {_chapter_link(course, c, '../chapters/')}" for c in shown)
    said += f": {', '.join(links)}." if 0 < len(shown) < 8 else "; they are the links."
    lines = ["", said, "", "::::{grid} 1 1 2 2", ":gutter: 3", ""]
    for part in course.plan["parts"]:
        lines += [":::{grid-item-card}", ":class-card: course-part", f"**{part['title']}**", ""]
        for chapter in course.chapters:
            if chapter.part == part["title"]:
                lines += _map_entry(course, chapter)
        lines += [":::", ""]
    return "\n".join([*lines, "::::", ""])


def _map_entry(course: Course, chapter: Chapter) -> list[str]:
    """Return a chapter's item in the map: number, title, and in small print what it is about."""
    title = _chapter_link(course, chapter, "../chapters/")
    state = "written" if course.shown(chapter) else "planned"
    return [
        f'- <span class="course-number {state}">{chapter.number}</span> {title}',
        f'  <span class="course-about">{chapter.about}</span>',
    ]


def _chapter_link(course: Course, chapter: Chapter, folder: str) -> str:
    """Return a link to a chapter that is written, or its title."""
    if course.shown(chapter):
        return f"[{chapter.title}]({folder}{chapter.stem}.ipynb)"
    return chapter.title


def interview(course: Course) -> str:
    """Return the list of all questions, each linked to its answer where that is written."""
    total = sum(len(chapter.questions) for chapter in course.chapters)
    lines = [
        "# Interview questions",
        "",
        f"<!-- {MADE} -->",
        f"The course answers these {total} questions, each in one chapter, with a cell that "
        f"demonstrates the answer. {len(course.answers)} are answered so far; they are the links.",
    ]
    part = None
    for chapter in course.chapters:
        if chapter.part != part:
            part = chapter.part
            lines += ["", f"## {part}"]
        if chapter.questions:
            title = _chapter_link(course, chapter, "../chapters/")
            lines += ["", f"**{chapter.number}. {title}**", ""]
        for label, question in chapter.questions.items():
            text = f"{{ref}}`{question} <{label}>`" if label in course.answers else question
            if "`" in question and label in course.answers:
                text = f"{question} {{ref}}`Answer <{label}>`"
            lines.append(f"- {text} ({label})")
    return "\n".join(lines) + "\n"


def reference_index(course: Course) -> str:
    """Return the table of all modules, with what each computes and where it is taught."""
    lines = [
        "# The library",
        "",
        f"<!-- {MADE} -->",
        "Every module of `minillm`, what it holds, and the chapter that teaches it.",
    ]
    groups = defaultdict(list)
    for module in course.modules:
        groups[module.split(".")[0]].append(module)
    for package, modules in sorted(groups.items()):
        lines += ["", f"## {package}", "", "| module | what it holds | taught in |"]
        lines.append("| :-- | :-- | :-- |")
        for module in modules:
            doc = course.docstring(module).replace("|", "\\|")
            home = _home(course, module, "../../")
            lines.append(f"| [{module}]({module}.md) | {doc} | {home} |")
    return "\n".join(lines) + "\n"


def reference_page(course: Course, module: str) -> str:
    """Return one module's API page; its text comes from the docstrings by static analysis."""
    path = f"minillm/{module.replace('.', '/')}.py"
    link = f"{course.url}/blob/{course.branch}/{path}"
    home = _home(course, module, "../../")
    return f"""# {module}

<!-- {MADE} -->
{f"Taught in {home}. " if home else ""}Source: [{path}]({link}).

```{{eval-rst}}
.. autoapimodule:: minillm.{module}
   :members:
```
"""


def _home(course: Course, module: str, up: str) -> str:
    """Return a link to a module's home page, or the planned chapter's title."""
    for page in course.homes.get(module, [])[:1]:
        chapter = next((c for c in course.chapters if page.endswith(c.stem)), None)
        if chapter is None:
            exists = (course.root / f"{page}.md").exists()
            name = page.rpartition("/")[2]
            return f"[{name}]({up}{page}.md)" if exists else name
        if course.shown(chapter):
            return f"[{chapter.number}. {chapter.title}]({up}{page}.ipynb)"
        return f"{chapter.number}. {chapter.title} (planned)"
    return ""


def contents(course: Course) -> str:
    """Return Sphinx's table of contents: pages and chapters that exist, exercises below each."""

    def existing(names: list[str]) -> list[dict]:
        return [{"file": name} for name in names if (course.root / f"{name}.md").exists()]

    parts = [{"caption": "Start", "chapters": existing(course.plan["front"])}]
    for part in course.plan["parts"]:
        entries = [
            _entry(course, c)
            for c in filter(course.shown, course.chapters)
            if c.part == part["title"]
        ]
        parts.append({"caption": part["title"], "chapters": entries})
    modules = [{"file": f"book/reference/{module}"} for module in course.modules]
    library = {"file": "book/reference/index", "sections": modules}
    made = {"book/interview"}
    made |= {f"book/{one.__name__}" for one in (families, parity) if one.page(course)}
    back = [e for e in course.plan["back"] if e in made or existing([e])]
    back = [{"file": name} for name in back]
    parts.append({"caption": "Reference", "chapters": [*back, library]})
    toc = {"format": "jb-book", "root": "book/intro", "parts": [p for p in parts if p["chapters"]]}
    head = f"# {MADE.replace('`', '')}\n"
    return head + yaml.safe_dump(toc, sort_keys=False, allow_unicode=True)


def _entry(course: Course, chapter: Chapter) -> dict:
    """Return a chapter's entry: its number in the sidebar, its exercises as a page below it."""
    entry = {"file": f"chapters/{chapter.stem}", "title": f"{chapter.number}. {chapter.title}"}
    if (course.root / "solutions" / f"{chapter.stem}.md").exists():
        entry["sections"] = [{"file": f"exercises/{chapter.stem}", "title": "Exercises"}]
    return entry
