"""Optimisation: methods that search for the best settings, one file each."""

from tilth._members import members

__getattr__ = members(__name__, __path__)
