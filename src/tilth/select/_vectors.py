"""Embeddings read in pieces and checked, and dot products that depend on the numbers alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tilth.errors import DataError

__all__ = ["PIECE", "Arrays", "Vectors", "exact_dots", "nonzero", "rounding"]

PIECE = 2**16
"""Numbers held at once while exact scores are computed: 512 KB of float64, in cache."""

Arrays = np.ndarray | Sequence[np.ndarray]


class Vectors:
    """The rows of one array, or of several arrays counted through, read in pieces.

    Args:
        given: [N, d] numbers, an array or a memory map, or several of them.
        what: What the rows are, for errors.
        start: The index of the first row.

    Raises:
        DataError: There are no rows, an array is not two-dimensional or holds no real numbers, or
            the arrays differ in d.
    """

    def __init__(self, given: Arrays, what: str, start: int = 0) -> None:
        several = isinstance(given, list | tuple) and len(given) > 0 and np.ndim(given[0]) == 2
        arrays = [np.asarray(array) for array in (given if several else [given])]
        for array in arrays:
            if array.ndim != 2 or array.dtype.kind not in "fiu":
                raise DataError(
                    f"{what} must be rows of numbers, not {array.dtype} {list(array.shape)}",
                    where=what,
                    fix="give a two-dimensional array of floats",
                )
            if array.shape[1] != arrays[0].shape[1] or not array.shape[1]:
                raise DataError(
                    f"rows of {array.shape[1]} and of {arrays[0].shape[1]} numbers", where=what
                )
        self.what = what
        self.start = start
        self._arrays = arrays
        self._ends = start + np.cumsum([len(array) for array in arrays])
        self.starts = [int(end) - len(array) for end, array in zip(self._ends, arrays, strict=True)]
        self.dimensions = arrays[0].shape[1]
        if not len(self):
            raise DataError(f"{what} has no rows", where=what, fix="give at least one row")

    def __len__(self) -> int:
        return int(self._ends[-1]) - self.start

    def blocks(
        self, size: int, allowed: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices [B] and rows [B, d] in order, at most `size` at a time; a view where it can be.

        Args:
            size: Most rows of a block.
            allowed: int [M] ascending, the rows to read; ``None``: all.
        """
        for begin, array in zip(self.starts, self._arrays, strict=True):
            end = begin + len(array)
            for first in range(begin, end, size):
                last = min(first + size, end)
                rows = np.arange(first, last)
                block = array[first - begin : last - begin]
                if allowed is not None:
                    rows = allowed[slice(*np.searchsorted(allowed, (first, last)))]
                    if len(rows) < len(block):
                        block = block[rows - first]
                if len(rows):
                    yield rows, block

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float64 [n, d], the rows with these indices."""
        taken = np.empty((len(rows), self.dimensions))
        of = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(of):
            mine = of == number
            taken[mine] = self._arrays[number][rows[mine] - self.starts[number]]
        return taken

    def refuse(self, rows: np.ndarray) -> None:
        """Says what is wrong with rows whose length is no usable number.

        Raises:
            DataError: Always; names the rows.
        """
        values = self.take(rows)
        broken = rows[~np.isfinite(values).all(axis=1)]
        zero = rows[(values == 0).all(axis=1)]
        for found, fault in ((broken, "hold NaN or infinity"), (zero, "are zero")):
            if len(found):
                raise DataError(
                    f"{len(found)} rows {fault}: rows {_named(found)}",
                    where=self.what,
                    fix="embed these again, or leave them out: they have no direction",
                )
        raise DataError(
            f"{len(rows)} rows are too long or too short to compute with: rows {_named(rows)}",
            where=self.what,
            fix="scale the rows to unit length",
        )


def exact_dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The canonical dot products of the rows of two float64 [n, d]: float64 [n].

    ``numpy.sum`` adds the products of a row pairwise, in an order that d alone decides; a matrix
    product adds them in an order that its shape and the processor decide.
    """
    return np.ascontiguousarray(left * right).sum(axis=1)


def nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``numpy.nonzero`` of a matrix, ten times faster where little is set."""
    row, column = np.divmod(np.flatnonzero(mask), max(1, mask.shape[1]))
    return row, column


def rounding(dimensions: int) -> float:
    """How far a float32 dot product of unit rows may lie from the canonical one.

    Any order of n float32 additions and products errs by at most n u / (1 - n u) of the product of
    the lengths, u = 2**-24 (Higham 2002, section 3.1). Sixteen more steps cover the conversion of
    the inputs, the comparison in float32, and the error of float64.
    """
    steps = (dimensions + 16) * 2.0**-24
    return steps / (1 - steps)


def _named(rows: np.ndarray) -> str:
    more = ", ..." if len(rows) > 10 else ""
    return ", ".join(map(str, rows[:10].tolist())) + more
