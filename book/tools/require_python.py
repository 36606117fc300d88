"""Check the Python that runs this, or print the requirements of one extra (`--extra book`).

`make` calls this with whatever `python3` is, before anything is installed.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def extra(name: str) -> list[str]:
    """Return the requirements of an extra, so that they can be installed without the package."""
    import tomllib

    return tomllib.loads(PROJECT.read_text("utf8"))["project"]["optional-dependencies"][name]


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"minillm needs Python 3.11 or newer, not {found}. Try: make PYTHON=python3.11 …")
    if sys.argv[1:2] == ["--extra"]:
        print("\n".join(extra(sys.argv[2])))
