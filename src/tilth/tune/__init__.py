"""Tuning: methods that change a model's weights, one file each."""

from tilth._members import members

__getattr__ = members(__name__, __path__)
