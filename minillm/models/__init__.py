"""Whole models, one family per file; import them from there: `from minillm.models.gpt import gpt2`."""
