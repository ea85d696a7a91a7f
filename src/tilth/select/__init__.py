"""Selection: methods that choose examples from a pool, one file each, and the kernels below them."""

from tilth._members import members
from tilth.select.targeted import round_robin

__all__ = ["round_robin"]

__getattr__ = members(__name__, __path__)
