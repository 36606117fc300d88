"""The role `{chapter}` followed by a number: a link where that chapter is written, else its title.

So a page may point at a chapter before it exists, and the link appears with the chapter.
"""

import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from course import Course


class ChapterRole(SphinxRole):
    """Resolve `{chapter}` and a number with the curriculum."""

    course = Course()

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link or the text; an unknown number is a warning, so an error with -W."""
        chapter = next(
            (c for c in self.course.chapters if str(c.number) == self.text.strip()), None
        )
        if chapter is None:
            message = f"there is no chapter {self.text!r}: give a number of book/curriculum.yml"
            return [], [self.inliner.reporter.warning(message, line=self.lineno)]
        label = f"chapter {chapter.number}, {chapter.title}"
        if not (self.course.root / "chapters" / f"{chapter.stem}.ipynb").exists():
            note = nodes.inline("", " (planned)", classes=["planned-note"])
            return [nodes.inline("", "", nodes.Text(label), note, classes=["planned-chapter"])], []
        link = addnodes.pending_xref(
            "", refdomain="std", reftype="doc", reftarget=f"/chapters/{chapter.stem}",
            refdoc=self.env.docname, refexplicit=True, refwarn=True,
        )  # fmt: skip
        link += nodes.inline("", label, classes=["std", "std-doc"])
        return [link], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role."""
    app.add_role("chapter", ChapterRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
