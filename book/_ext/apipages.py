"""Sphinx hooks: API pages by static analysis, and links from the text to them."""

import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.transforms.post_transforms import SphinxPostTransform

SHAPE = re.compile(r"(jaxtyping\.\w+\[[^'\"\[\]]*?, )([^'\"\[\]]*)\]")
LONG = re.compile(
    r"(?<!= )(?<![\w.~])"
    r"((?:jaxtyping|torch|numpy|matplotlib|collections\.abc|triton\.language)\.(?:\w+\.)*[A-Z]\w*)"
)
LINKED = (nodes.reference, nodes.title, addnodes.pending_xref)
KEPT = re.compile(
    r"((?::[\w:]+:)?``[^`]+``|(?::[\w:]+:)?`[^`]+`|(?<![\w*])\*{1,2}\w(?:[^*]*\w)?\*{1,2}(?![\w*]))"
)
SPECIAL = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")
NAME = re.compile(r"minillm(\.\w+)+(\(\))?")


def shorten(app, what, name, obj, options, args, retann):
    """Give jaxtyping's shapes back the quotes that autoapi drops; show `Tensor`, not its path."""

    def fix(text):
        return LONG.sub(r"~\1", SHAPE.sub(r"\1'\2']", text)) if text else text

    return fix(args), fix(retann)


def skip(app, what, name, obj, skip, options):
    """Document an object once, where it is defined, and only if it has a docstring."""
    return True if getattr(obj, "imported", False) or not getattr(obj, "docstring", "x") else None


def modules_first(app):
    """Keep the page of a module whose package hands on a function of the same name."""
    known = app.env.autoapi_all_objects
    for package in [one for one in known.values() if getattr(one, "submodules", None)]:
        parts = {part.id: part for part in package.submodules}
        package.children = [child for child in package.children if child.id not in parts]
        known.update(parts)


def plain_docstring(app, what, name, obj, options, lines):
    """Read docstrings as plain text: `x` is code; *, | and _ are themselves; `Args:` a list."""
    literal = False
    for i, line in enumerate(lines):
        indented = line[:1].isspace()
        literal = (literal and (indented or not line)) or line.rstrip().endswith("::")
        if literal or line.lstrip().startswith((">>>", "..")):
            continue
        marker, rest = re.match(r"(\s*(?:[*-] )?)(.*)", line).groups()
        parts = KEPT.split(rest)
        parts[0::2] = [SPECIAL.sub(r"\\\1", part) for part in parts[0::2]]
        parts[1::2] = [f"``{p.strip('`')}``" if p[0] == "`" else p for p in parts[1::2]]
        lines[i] = marker + "".join(parts)
    if what in ("function", "method", "class", "exception"):
        google = GoogleDocstring(lines, Config(napoleon_use_ivar=True), app, what, name, obj)
        lines[:] = google.lines()


def alias(app, env, node, contnode):
    """Show a name in a signature as it is where no page explains it, such as a type alias."""
    in_signature = any(isinstance(up, addnodes.desc_signature) for up in _ancestors(node))
    return contnode if node.get("refdomain") == "py" and in_signature else None


class LinkNames(SphinxPostTransform):
    """Turn a full name in code type, such as `minillm.nn.ops.Ops`, into a link to its API page."""

    default_priority = 5

    def run(self, **_):
        """Replace every name that is in the index and not linked yet."""
        objects = self.env.get_domain("py").objects
        for literal in list(self.document.findall(nodes.literal)):
            text = literal.astext()
            name = text.removesuffix("()")
            if not NAME.fullmatch(text) or name not in objects:
                continue
            if any(isinstance(up, LINKED) for up in _ancestors(literal)):
                continue
            if self.env.docname == objects[name].docname:
                continue
            target = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=name, refdoc=self.env.docname
            )
            literal.replace_self(target)
            target += literal


def _ancestors(node):
    while node.parent is not None:
        node = node.parent
        yield node


def one_search(app, config):
    """Leave out the strip with a second search field: sidebar and button row have theirs."""
    config.html_theme_options["navbar_persistent"] = []


def from_nothing(app, config):
    """Build all pages anew: pages of what is gone would stay, and links in code would get lost."""
    for folder in (Path(app.outdir), Path(app.doctreedir)):
        for path in folder.glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def edit_text(app, pagename, templatename, context, doctree):
    """Point "suggest edit" at the text that a person edits, not at the notebook made from it."""
    todo = list(context.get("header_buttons", []))
    folder = pagename.split("/")[0]
    source = {"chapters": "chapters/", "exercises": "solutions/"}.get(folder)
    while todo:
        button = todo.pop()
        todo += button.get("buttons", [])
        if "/edit/" in (button.get("url") or "") and source:
            url = button["url"].replace(".ipynb", ".md")
            button["url"] = url.replace(f"/{folder}/", f"/{source}")


def one_document(app, doctree):
    """Give every node its page: one read by `eval-rst` would drag all of Sphinx into the pickle."""
    for node in doctree.findall():
        node.document = doctree


def setup(app):
    """Connect the hooks."""
    app.connect("config-inited", from_nothing)
    app.connect("config-inited", one_search)
    app.connect("builder-inited", modules_first, priority=900)  # once autoapi has read the code
    app.connect("doctree-read", one_document, priority=900)
    app.connect("html-page-context", edit_text, priority=900)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", alias)
    app.add_post_transform(LinkNames)
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}
