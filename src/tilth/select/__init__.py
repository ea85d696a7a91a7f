"""Selection: methods that choose examples from a pool, one file each, and their kernels."""

from tilth._members import members
from tilth.select.diverse import greedy_diverse
from tilth.select.targeted import round_robin

__all__ = ["greedy_diverse", "round_robin"]

__getattr__ = members(__name__, __path__)
