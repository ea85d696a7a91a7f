"""The greedy diversity filter of Deita (Liu et al. 2024, arXiv 2312.15685), exact to the last bit.

Rows are looked at in a given order. One is rejected where its cosine to a row kept before is
**strictly above** the threshold. A cosine that a decision hangs on is the **canonical** one: dot
products in float64, summed over the dimensions by ``numpy.sum``, divided by the two lengths, and
compared as float32, so that rows written with a cosine of 0.8 are not above a threshold of 0.8.
What is kept therefore depends on the numbers in the rows alone, not on blocks or threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilth.errors import DataError
from tilth.select._vectors import PIECE, Arrays, Vectors, exact_dots, nonzero, rounding

__all__ = ["Reasons", "Rejection", "greedy_diverse"]

_BLOCK = 256  # rows looked at together; our choice, fastest of 128 to 1024
_SAMPLE = 256  # rows by which to choose how to compare; our choice
_PAIR = 32  # what one pair costs alone, against its part of a matrix product; measured, d = 384
_CHUNK = 4096  # kept rows that a block meets at once: 16 MB of cosines


@dataclass(frozen=True)
class Rejection:
    """Why a row was not kept.

    Attributes:
        similar_to: The kept row that it is most similar to (the first of equals); ``None``: the
            budget was reached before it.
        similarity: The canonical cosine to that row, as float32.
    """

    similar_to: int | None = None
    similarity: float | None = None

    def __str__(self) -> str:
        if self.similar_to is None:
            return "the budget was reached before it"
        return f"too similar to kept row {self.similar_to}: cosine {self.similarity:.4f}"


class Reasons(Mapping[int, Rejection]):
    """Row -> why it was rejected, in the order in which rows were looked at; backed by arrays.

    Attributes:
        rows: int64 [R], the rejected rows.
        similar_to: int64 [R], the most similar kept row, -1 where the budget was reached.
        similarity: float32 [R], the cosine to it, NaN where the budget was reached.
    """

    def __init__(self, rows: np.ndarray, similar_to: np.ndarray, similarity: np.ndarray) -> None:
        self.rows, self.similar_to, self.similarity = rows, similar_to, similarity
        self._sorted = np.argsort(rows, kind="stable")

    def __getitem__(self, row: int) -> Rejection:
        place = int(np.searchsorted(self.rows, row, sorter=self._sorted))
        if place == len(self.rows) or self.rows[self._sorted[place]] != row:
            raise KeyError(row)
        at = self._sorted[place]
        if self.similar_to[at] < 0:
            return Rejection()
        return Rejection(int(self.similar_to[at]), float(self.similarity[at]))

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.tolist())

    def __len__(self) -> int:
        return len(self.rows)


def greedy_diverse(
    embeddings: Arrays,
    order: Sequence[int] | np.ndarray,
    budget: int,
    threshold: float = 0.9,
    *,
    block_rows: int | None = None,
) -> tuple[np.ndarray, Reasons]:
    """Keeps rows in the given order unless they are too similar to one kept already.

    Blocks of rows meet the kept rows in float32 matrix products; where the outcome lies closer to
    the threshold than these can err, the canonical cosine decides. Memory: the kept rows as
    float32, and blocks of some 100 MB.

    Args:
        embeddings: [N, d] numbers of any real type, an array or a memory map, or several counted
            through; rows need not be of unit length.
        order: int [M], rows in the order in which to look at them, best first, each at most once;
            rows that are not in it are neither kept nor rejected.
        budget: Stop when so many are kept.
        threshold: Highest cosine allowed between kept rows. Paper, section 2.5, and official code.
        block_rows: Rows looked at together; ``None``: 256. No value changes the result.
            256 is our choice.

    Returns:
        int64 [K], the kept rows in order; and for every other row of `order` why it was rejected.

    Raises:
        DataError: A row of `order` is zero, holds NaN or infinity, is out of range or occurs twice;
            `budget` is negative; `threshold` is no cosine.

    Example:
        >>> rows = [[1, 0, 0], [0.96, 0.28, 0], [0.8, 0.6, 0]]
        >>> kept, reasons = greedy_diverse(rows, [0, 1, 2], budget=2)
        >>> kept.tolist(), str(reasons[1])
        ([0, 2], 'too similar to kept row 0: cosine 0.9600')
    """
    vectors = Vectors(embeddings, "embeddings")
    rows = _checked(order, budget, threshold, len(vectors))
    lengths = _lengths(vectors, rows)
    size = block_rows or _BLOCK
    kept = _Kept(vectors, lengths, threshold, sample=rows[:: len(rows) // _SAMPLE + 1])
    is_kept = np.zeros(len(rows), bool)
    similar_to = np.full(len(rows), -1)
    similarity = np.full(len(rows), np.nan, np.float32)
    for first in range(0, len(rows), size):
        room = budget - len(kept.rows)
        if not room:
            break
        block = slice(first, first + size)
        is_kept[block], similar_to[block], similarity[block] = kept.meet(rows[block], room)
    rejected = ~is_kept
    if len(kept.rows) < budget:
        warnings.warn(
            f"{budget} rows were to be kept, {len(kept.rows)} are: {rejected.sum()} of the "
            f"{len(rows)} rows have a cosine above {threshold} to a kept one",
            stacklevel=2,
        )
    return kept.rows, Reasons(rows[rejected], similar_to[rejected], similarity[rejected])


class _Kept:
    """The rows kept so far, as float32 [K, 1 + d]: unit rows, led by the length of their rest.

    The rest of a row is what follows its first numbers. By Cauchy and Schwarz a cosine is at most
    the dot product over the first numbers plus the product of the lengths of the rests, so that a
    short product tells most pairs that cannot be above the threshold.
    """

    def __init__(
        self, vectors: Vectors, lengths: np.ndarray, threshold: float, sample: np.ndarray
    ) -> None:
        self.rows = np.zeros(0, np.int64)
        self._chunks: list[np.ndarray] = []
        self._vectors = vectors
        self._lengths = lengths
        self._threshold = np.float32(threshold)
        self._margin = np.float32(2 * rounding(vectors.dimensions))
        self._first = vectors.dimensions
        self._first = self._cheapest(self._units(sample)[:, 1:])

    def _cheapest(self, sample: np.ndarray) -> int:
        """How many first numbers cost least: all, where they do not tell enough pairs."""
        d = self._vectors.dimensions
        costs = {d: 1.0}
        for first in {d // 8, d // 4, d // 2} - {0}:
            rest = np.linalg.norm(sample[:, first:], axis=1)
            bound = sample[:, :first] @ sample[:, :first].T + np.outer(rest, rest)
            share = np.triu(bound >= self._threshold, 1).sum() / max(1, len(sample) ** 2 / 2)
            costs[first] = first / d + min(1.0, share * _PAIR)
        return min(costs, key=costs.__getitem__)

    def _units(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, 1 + d]."""
        exact = self._vectors.take(rows)
        exact /= self._lengths[rows][:, None]
        rest = exact[:, self._first :]
        units = np.empty((len(rows), 1 + exact.shape[1]), np.float32)
        units[:, 0] = np.sqrt(np.einsum("ij,ij->i", rest, rest))
        units[:, 1:] = exact
        return units

    def _fast(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """float32 [n, C], cosines of units; or bounds of them that are below the threshold."""
        if self._first == self._vectors.dimensions:
            return left[:, 1:] @ right[:, 1:].T
        cosines = left[:, : 1 + self._first] @ right[:, : 1 + self._first].T
        row, column = nonzero(cosines >= self._threshold - self._margin)
        if len(row) * _PAIR > cosines.size:
            return left[:, 1:] @ right[:, 1:].T
        step = max(1, PIECE // left.shape[1])
        for first in range(0, len(row), step):
            at = row[first : first + step], column[first : first + step]
            cosines[at] = np.einsum("ij,ij->i", left[at[0], 1:], right[at[1], 1:])
        return cosines

    def meet(self, rows: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keeps up to `room` of the rows [B] that come next.

        Returns:
            bool [B], kept; int64 [B], the most similar kept row of each rejected one, else -1;
            float32 [B], the cosine to it, else NaN.
        """
        units = self._units(rows)
        nearest = _Nearest(len(rows), self._threshold - self._margin, self._margin)
        for number, chunk in enumerate(self._chunks):
            first = number * _CHUNK
            filled = chunk[: len(self.rows) - first]
            nearest.meet(np.arange(len(rows)), self._fast(units, filled), first)
        above = nearest.best > self._threshold + self._margin
        unsure = ~above & (nearest.best >= self._threshold - self._margin)
        _, cosines = self._settled(nearest, rows, unsure)
        above[unsure] = cosines[unsure] > self._threshold
        left = np.flatnonzero(~above)
        new = left[self._mutual(rows[left], units[left])][:room]
        is_kept = np.zeros(len(rows), bool)
        is_kept[new] = True
        before = len(self.rows)
        self._append(rows[new], units[new])
        rejected = ~is_kept
        if len(new) == room:
            rejected[new[-1] :] = False
        out = np.flatnonzero(rejected)
        if len(out) and len(new):
            cosines = self._fast(units[out], units[new])
            cosines[new > out[:, None]] = -np.inf
            nearest.meet(out, cosines, before)
        return is_kept, *self._settled(nearest, rows, rejected)

    def _mutual(self, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Which of the rows stay, as positions, when each that stays rejects later ones."""
        cosines = self._fast(units, units)
        one, other = nonzero(cosines >= self._threshold - self._margin)
        one, other = one[one < other], other[one < other]
        clash = cosines[one, other] > self._threshold + self._margin
        unsure = np.flatnonzero(~clash)
        clash[unsure] = self._cosines(rows[one[unsure]], rows[other[unsure]]) > self._threshold
        one, other = one[clash], other[clash]
        begins = np.searchsorted(one, np.arange(len(rows) + 1))
        stays = np.ones(len(rows), bool)
        for row in np.unique(one).tolist():
            if stays[row]:
                stays[other[begins[row] : begins[row + 1]]] = False
        return np.flatnonzero(stays)

    def _settled(
        self, nearest: _Nearest, rows: np.ndarray, which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The most similar kept row of some rows [B] and the canonical cosine; else -1 and NaN."""
        similar_to = np.full(len(rows), -1)
        similarity = np.full(len(rows), np.nan, np.float32)
        at, position = nearest.pairs(which)
        cosines = self._cosines(rows[at], self.rows[position])
        order = np.lexsort((position, -cosines, at))
        at, firsts = np.unique(at[order], return_index=True)
        similar_to[at] = self.rows[position[order][firsts]]
        similarity[at] = cosines[order][firsts]
        return similar_to, similarity

    def _cosines(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """float32 [n], the canonical cosines of pairs of rows."""
        cosines = np.empty(len(left))
        step = max(1, PIECE // self._vectors.dimensions)
        for first in range(0, len(left), step):
            one, other = left[first : first + step], right[first : first + step]
            dots = exact_dots(self._vectors.take(one), self._vectors.take(other))
            cosines[first : first + step] = dots / (self._lengths[one] * self._lengths[other])
        return cosines.astype(np.float32)

    def _append(self, rows: np.ndarray, units: np.ndarray) -> None:
        """Adds kept rows, in chunks of equal size so that nothing is ever copied."""
        done = 0
        while done < len(rows):
            used = len(self.rows) % _CHUNK
            if not used:  # the system gives memory only to the part that is written
                self._chunks.append(np.empty((_CHUNK, units.shape[1]), np.float32))
            part = units[done : done + _CHUNK - used]
            self._chunks[-1][used : used + len(part)] = part
            self.rows = np.concatenate([self.rows, rows[done : done + len(part)]])
            done += len(part)


class _Nearest:
    """For rows of a block, the kept rows that can be the most similar and above the threshold."""

    def __init__(self, rows: int, floor: np.float32, margin: np.float32) -> None:
        self.best = np.full(rows, -np.inf, np.float32)
        self._floor = floor
        self._margin = margin
        nothing = np.zeros(0, np.int64)
        self._found = [(nothing, nothing, np.zeros(0, np.float32))]

    def meet(self, at: np.ndarray, cosines: np.ndarray, first: int) -> None:
        """Takes in the fast cosines [n, C] of rows `at` and the kept rows from `first` on."""
        top = cosines.max(axis=1)
        self.best[at] = np.maximum(self.best[at], top)
        limit = np.maximum(self.best[at] - self._margin, self._floor)
        hit = np.flatnonzero(top >= limit)
        row, column = nonzero(cosines[hit] >= limit[hit, None])
        self._found.append((at[hit[row]], first + column, cosines[hit[row], column]))

    def pairs(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the block for which `which` holds, and positions of kept rows close to them."""
        at, position, fast = (np.concatenate(part) for part in zip(*self._found, strict=True))
        near = which[at] & (fast >= self.best[at] - self._margin)
        return at[near], position[near]


def _lengths(vectors: Vectors, rows: np.ndarray) -> np.ndarray:
    """float64 [N], the lengths of these rows, NaN elsewhere."""
    squares = np.full(len(vectors), np.nan)
    size = max(1, PIECE // vectors.dimensions)
    with np.errstate(over="ignore", invalid="ignore"):
        for here, block in vectors.blocks(size, np.sort(rows)):
            exact = block.astype(np.float64)
            squares[here] = exact_dots(exact, exact)
    bad = rows[~((squares[rows] > 1e-280) & (squares[rows] < 1e280))]
    if len(bad):
        vectors.refuse(np.sort(bad))
    return np.sqrt(squares)


def _checked(
    order: Sequence[int] | np.ndarray, budget: int, threshold: float, total: int
) -> np.ndarray:
    """The order as an array; what else was asked for makes sense."""
    rows = np.asarray(order)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise DataError("the order must be a list of row numbers", where="order")
    rows = rows.astype(np.int64)
    outside = rows[(rows < 0) | (rows >= total)]
    if len(outside):
        raise DataError(f"there is no row {outside[0]}, there are {total} rows", where="order")
    again = np.flatnonzero(np.bincount(rows, minlength=1) > 1)
    if len(again):
        raise DataError(
            f"row {again[0]} occurs twice", where="order", fix="name each row at most once"
        )
    if budget < 0:
        raise DataError(f"the budget is {budget}", where="budget", fix="give 0 or more")
    if not -1 <= threshold <= 1:
        raise DataError(
            f"the threshold is {threshold}",
            where="threshold",
            fix="give a cosine; the paper uses 0.9",
        )
    return rows
