"""Selection: methods that choose examples from a pool, one file each."""

from tilth._members import members

__getattr__ = members(__name__, __path__)
