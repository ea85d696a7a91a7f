"""Evaluation: methods that score models and compare scores, one file each."""

from tilth._members import members

__getattr__ = members(__name__, __path__)
