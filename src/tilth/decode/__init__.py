"""Decoding: methods that change behaviour while a model answers, one file each."""

from tilth._members import members

__getattr__ = members(__name__, __path__)
