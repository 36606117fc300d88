"""Whole models, one family per file, such as `minillm.models.gpt`."""
