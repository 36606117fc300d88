"""A course on large language models: the small, proved library that its chapters import."""

__version__ = "0.1.0"
