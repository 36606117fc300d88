"""Show the library's own source in a notebook, so that chapters never copy it."""

import inspect
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """The source text of one object; a notebook shows it as a highlighted listing with a caption.

    `name` is the full dotted name, `path` the file inside the package (None for notebook code).
    """

    name: str
    path: str | None
    text: str

    def _repr_markdown_(self) -> str:
        longest = max((len(run) for run in re.findall(r"`+", self.text)), default=0)
        fence = "`" * max(3, longest + 1)
        where = f"`{self.path}`" if self.path else "this notebook"
        return f"`{self.name}`, from {where}:\n\n{fence}python\n{self.text}\n{fence}"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Source({self.name}, {len(self.text.splitlines())} lines)"


def show(obj: object) -> Source:
    """Return the real source of a function, class, method or module, read with `inspect`.

    As the last line of a cell it renders as a listing in Jupyter, in Colab and in the book,
    jaxtyping shapes included. Raises `TypeError` for an object that has no Python source.
    """
    target = inspect.unwrap(obj) if callable(obj) else obj
    if not _has_name(target) and inspect.isfunction(getattr(target, "fn", None)):
        target = target.fn  # a Triton kernel, compiled or interpreted
    if isinstance(target, (staticmethod, classmethod, property)):
        target = target.fget if isinstance(target, property) else target.__func__
    if not _has_name(target):
        kind = type(obj).__name__
        raise TypeError(
            f"show() lists functions, classes, methods and modules, not an instance of {kind}; "
            "pass the class itself: show(type(x))"
        )
    try:
        text = inspect.getsource(target)
    except (OSError, TypeError) as error:
        raise TypeError(
            f"{_full_name(target)} has no Python source to show (it is built in or made at run "
            "time); show a function or class written in a file, or quote it in the text"
        ) from error
    return Source(_full_name(target), _package_path(target), textwrap.dedent(text).rstrip())


def _has_name(target: object) -> bool:
    """Return whether `target` is a thing that source code can define."""
    kinds = (inspect.isclass, inspect.isroutine, inspect.ismodule)
    return any(is_kind(target) for is_kind in kinds)


def _full_name(target: object) -> str:
    """Return `package.module.Class.method`, or the bare name for code typed into a notebook."""
    if inspect.ismodule(target):
        return target.__name__
    module = getattr(target, "__module__", None)
    name = getattr(target, "__qualname__", repr(target))
    return name if module in (None, "__main__", "builtins") else f"{module}.{name}"


def _package_path(target: object) -> str | None:
    """Return the file as seen from the folder that holds the package: `minillm/nn/norms.py`."""
    name = target.__name__ if inspect.ismodule(target) else getattr(target, "__module__", "")
    file = getattr(sys.modules.get(name), "__file__", None)
    if name == "__main__" or file is None:
        return None
    parents = name.split(".") if Path(file).stem == "__init__" else name.split(".")[:-1]
    return Path(*parents, Path(file).name).as_posix()
