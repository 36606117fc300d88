"""Corpora and batches."""

from minillm.data.batching import TokenWindows, check_tokens, join_documents
from minillm.data.corpus import documents, load, split

__all__ = ["TokenWindows", "check_tokens", "documents", "join_documents", "load", "split"]
