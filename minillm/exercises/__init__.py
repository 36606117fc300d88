"""Exercises: checks that run in a learner's notebook, and the grading of many notebooks.

This package imports nothing of the rest of `minillm`.
"""

from minillm.exercises.check import Grader, Outcome, grader

__all__ = ["Grader", "Outcome", "grader"]
