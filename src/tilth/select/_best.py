"""The best rows of a pool for each group of queries, in one pass over blocks, exact to the bit.

Blocks are scored by float32 matrix products. A row whose score lies further from the edge of a list
than these products can err is in or out for certain; all others are settled by the canonical score,
and so is the order within a list. Memory: G lists of `depth` rows, and one block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tilth.select._similarity import Similarity
from tilth.select._vectors import Vectors, nonzero

__all__ = ["UNIT", "Best", "best_rows", "merged"]

UNIT = 1e-2
"""How far from 1 the length of a unit row may lie. Our choice: float16 keeps it within 1e-3."""
_BLOCK = 2**21  # numbers in a block of rows, and in its scores: 16 MB of float32


@dataclass(frozen=True)
class Best:
    """For each of G groups its best rows, highest canonical score first, equals by index.

    Attributes:
        rows: int64 [G, L], pool indices.
        scores: float64 [G, L], canonical.
        queries: int64 [G, L], the query that each score is due to.
        stretched: How many rows of the pool are not of unit length.
    """

    rows: np.ndarray
    scores: np.ndarray
    queries: np.ndarray
    stretched: int = 0


def best_rows(
    similarity: Similarity,
    pool: Vectors,
    depth: int,
    *,
    allowed: np.ndarray | None = None,
    block_rows: int | None = None,
) -> Best:
    """The `depth` best rows of every group, all rows where there are fewer.

    Args:
        similarity: Scores for G groups.
        pool: N rows.
        depth: Length of the lists.
        allowed: int [M] ascending, the rows that may be chosen.
        block_rows: Rows of a block; ``None``: by the size of rows and scores. Our choice.

    Raises:
        DataError: A row is zero, or holds NaN or infinity; names the rows.
    """
    wide = max(similarity.queries, pool.dimensions)
    lists = _Lists(similarity, pool, depth)
    broken: list[np.ndarray] = []
    stretched = 0
    longest = 0.0
    for rows, given in pool.blocks(block_rows or max(256, _BLOCK // wide), allowed):
        with np.errstate(over="ignore", invalid="ignore"):
            block = given.astype(np.float32, copy=False)
            squares = np.einsum("ij,ij->i", block, block)
        bad = ~((squares > 1e-30) & (squares < 1e30))
        broken.extend([rows[bad]] * bool(bad.any()))
        if broken:
            continue  # only looks for more of them
        stretched += int((np.abs(np.sqrt(squares) - 1) > UNIT).sum())
        longest = max(longest, float(np.sqrt(squares.max())))
        lists.add(rows, similarity.fast(block), similarity.errors(longest))
    if broken:
        pool.refuse(np.concatenate(broken))
    return replace(lists.sorted(), stretched=stretched)


def merged(parts: list[Best], depth: int) -> Best:
    """The best rows of all shards from the best rows of each, shards in any order."""
    rows = np.concatenate([part.rows for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    queries = np.concatenate([part.queries for part in parts], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :depth]
    return Best(
        np.take_along_axis(rows, order, 1),
        np.take_along_axis(scores, order, 1),
        np.take_along_axis(queries, order, 1),
        stretched=sum(part.stretched for part in parts),
    )


class _Lists:
    """G lists of rows in ascending order of index that hold the best rows seen so far, and more."""

    def __init__(self, similarity: Similarity, pool: Vectors, depth: int) -> None:
        self._similarity = similarity
        self._pool = pool
        self._depth = depth
        groups = similarity.groups
        self._count = np.zeros(groups, np.int64)
        self._rows = np.zeros((groups, 0), np.int64)
        self._fast = np.zeros((groups, 0), np.float32)
        self._edge = np.full(groups, -np.inf)  # a fast score that `depth` rows reach
        self._errors = np.zeros(groups)

    def add(self, rows: np.ndarray, fast: np.ndarray, errors: np.ndarray) -> None:
        """Takes in a block: rows [B], fast scores [G, B] and their errors [G]."""
        self._errors = errors
        last = len(rows) - self._depth
        if last > 0 and not self._count.any():
            self._edge = np.partition(fast, last, axis=1)[:, last].astype(np.float64)
        floor = np.nextafter((self._edge - 2 * errors).astype(np.float32), np.float32(-np.inf))
        group, column = nonzero(fast >= floor[:, None])
        place, count = _places(group, self._count)
        self._widen(int(count.max()))
        self._rows[group, place] = rows[column]
        self._fast[group, place] = fast[group, column]
        self._count = count
        if count.max() > 2 * self._depth:
            self._cut()

    def sorted(self) -> Best:
        """The lists, cut to their length and in their canonical order."""
        self._cut()
        shape = (len(self._count), int(self._count.max()))
        rows = self._rows[:, : shape[1]]
        groups = np.repeat(np.arange(shape[0]), shape[1])
        scores, queries = self._similarity.exact(self._pool, groups, rows.ravel())
        order = np.argsort(-scores.reshape(shape), axis=1, kind="stable")
        return Best(
            np.take_along_axis(rows, order, 1),
            np.take_along_axis(scores.reshape(shape), order, 1),
            np.take_along_axis(queries.reshape(shape), order, 1),
        )

    def _cut(self) -> None:
        """Leaves the best `depth` rows of each list; close to the edge the exact score decides."""
        over = self._count > self._depth
        if not over.any():
            return
        last = self._fast.shape[1] - self._depth
        edge = np.partition(self._fast, last, axis=1)[:, last]
        with np.errstate(invalid="ignore"):  # nothing minus nothing, where no row is
            distance = self._fast - np.where(over, edge, -np.inf)[:, None]
        margin = (2 * self._errors).astype(np.float32)[:, None]
        keep = distance > margin
        room = self._depth - keep.sum(axis=1)
        group, place = nonzero(np.abs(distance) <= margin)
        scores, _ = self._similarity.exact(self._pool, group, self._rows[group, place])
        best_first = np.lexsort((place, -scores, group))
        group, place = group[best_first], place[best_first]
        rank, _ = _places(group, np.zeros_like(self._count))
        keep[group, place] = rank < room[group]
        group, place = nonzero(keep)
        target, self._count = _places(group, np.zeros_like(self._count))
        rows, fast = self._rows[group, place], self._fast[group, place]
        self._fast = np.full((len(keep), int(self._count.max())), -np.inf, np.float32)
        self._rows = np.zeros(self._fast.shape, np.int64)
        self._rows[group, target], self._fast[group, target] = rows, fast
        self._edge = np.where(over, edge, self._edge)

    def _widen(self, width: int) -> None:
        more = max(0, width - self._fast.shape[1])
        if more:
            self._rows = np.pad(self._rows, ((0, 0), (0, more)))
            self._fast = np.pad(self._fast, ((0, 0), (0, more)), constant_values=-np.inf)


def _places(group: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where entries of ascending groups go in lists that hold `count`, and the new counts."""
    new = np.bincount(group, minlength=len(count))
    place = np.arange(len(group)) - np.repeat(np.cumsum(new) - new, new) + np.repeat(count, new)
    return place, count + new
