"""The book's tools, importable from its tests."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))


@pytest.fixture(scope="session")
def course():
    """The course as it lies in this checkout."""
    from course import Course

    return Course(ROOT)
