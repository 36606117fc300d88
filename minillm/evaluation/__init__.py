"""Evaluation: perplexity and bits per byte."""

from minillm.evaluation.perplexity import Perplexity, perplexity

__all__ = ["Perplexity", "perplexity"]
