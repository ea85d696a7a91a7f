"""Selection by similarity to queries: round-robin, global top and mean-max, exact to the last bit.

The score of a pool row for a query is the dot product of the two rows as given (for unit rows the
cosine). Where the order of two rows hangs on it, the **canonical score** decides: both rows in
float64, their products summed over the dimensions by ``numpy.sum``. Equal canonical scores go by
pool index, the lower first. The order therefore depends on the numbers in the rows alone: not on
blocks, threads, shards, or the type that they are stored in.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tilth.errors import DataError
from tilth.select._best import UNIT, Best, best_rows
from tilth.select._similarity import Similarity
from tilth.select._vectors import Arrays, Vectors, exact_dots

__all__ = [
    "Order",
    "Pulls",
    "TargetedOrder",
    "global_top",
    "mean_max",
    "round_robin",
    "similarity_for",
]

Rule = Literal["round_robin", "global_top", "mean_max"]


@dataclass(frozen=True)
class Pulls:
    """Chosen rows in the order of selection, and what pulled each.

    Attributes:
        rows: int64 [n], pool indices.
        queries: int64 [n], the query that pulled the row; of a task, its query with the highest
            score for the row (the first of equals).
        rounds: int64 [n], the round of the turn, from 1; under the other rules the rank.
        scores: float64 [n], the canonical score that it was ranked by.
    """

    rows: np.ndarray
    queries: np.ndarray
    rounds: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Pulls:
        return Pulls(self.rows[part], self.queries[part], self.rounds[part], self.scores[part])


class Order(ABC):
    """The order in which a rule takes rows, computed as deep as somebody asks.

    Args:
        similarity: Scores for the queries or tasks that take turns.
        total: How many rows there are to choose from.
        depth: Length of the lists at first; ``None``: twice what each gives if no two lists hold
            the same row, at least 64. No value changes the order.

    Attributes:
        depth: Length of the lists that have been looked up, 0 before the first.
    """

    def __init__(self, similarity: Similarity, total: int, depth: int | None) -> None:
        nothing = np.zeros(0, np.int64)
        self._similarity = similarity
        self._total = total
        self._start = depth
        self.depth = 0
        self._pulls = Pulls(nothing, nothing, nothing, np.zeros(0))

    @abstractmethod
    def _best(self, depth: int) -> Best:
        """The best `depth` rows of every list."""

    def first(self, count: int) -> Pulls:
        """The first `count` rows of the order, all where there are fewer.

        Raises:
            DataError: `count` is below 1, or a row of the pool is zero or holds NaN or infinity.
        """
        if count < 1:
            raise DataError(f"count is {count}", where="count", fix="ask for at least one row")
        count = min(count, self._total)
        depth = self._start or max(64, 2 * math.ceil(count / self._similarity.groups))
        while len(self._pulls) < count:
            # One list of `count` rows holds as many different ones: none needs to be longer.
            self.depth = min(max(depth, 4 * self.depth), count)
            best = self._best(self.depth)
            if best.stretched and not len(self._pulls):
                _warn_of_lengths(best.stretched, "pool")
            self._pulls = _turns(best)
        return self._pulls[:count]


class TargetedOrder(Order):
    """The order of a pool that this machine can read.

    Args:
        queries: float [Q, d], unit rows.
        pool: float [N, d], unit rows; an array or a memory map, or a sequence of such, whose rows
            are counted through.
        tasks: A label per query; ``None``: every query is a task of its own.
        rule: See :func:`round_robin`, :func:`global_top`, :func:`mean_max`.
        allowed: int [M], the rows that may be chosen; ``None``: all.
        depth: See :class:`Order`.
        block_rows: Rows scored at once; ``None``: by their size. No value changes the order.

    Raises:
        DataError: There are no queries or no rows, their dimensions differ, a query is zero or
            holds NaN or infinity, `tasks` does not label every query, or `allowed` names a row
            that is not there.

    Example:
        >>> order = TargetedOrder(np.eye(2), np.eye(2)[[0, 1, 0]])
        >>> order.first(2).rows.tolist(), order.first(3).rows.tolist()
        ([0, 1], [0, 1, 2])
    """

    def __init__(
        self,
        queries: np.ndarray,
        pool: Arrays,
        *,
        tasks: Sequence[str] | None = None,
        rule: Rule = "round_robin",
        allowed: np.ndarray | None = None,
        depth: int | None = None,
        block_rows: int | None = None,
    ) -> None:
        self._pool = Vectors(pool, "pool")
        self._allowed = None if allowed is None else _checked(allowed, len(self._pool))
        self._block_rows = block_rows
        similarity = similarity_for(queries, tasks, rule, self._pool.dimensions)
        total = len(self._pool) if self._allowed is None else len(self._allowed)
        super().__init__(similarity, total, depth)

    def _best(self, depth: int) -> Best:
        return best_rows(
            self._similarity,
            self._pool,
            depth,
            allowed=self._allowed,
            block_rows=self._block_rows,
        )


def round_robin(
    queries: np.ndarray,
    pool: Arrays,
    count: int,
    *,
    tasks: Sequence[str] | None = None,
) -> np.ndarray:
    """The first `count` rows when queries take turns (RDS+, Ivison et al. 2025, arXiv 2503.01807).

    In the order of the queries, each takes the next best row of its own ranking. A row that is
    taken already is dropped, but **the turn is spent**. With `tasks` the tasks take turns, in the
    order of first appearance, and a row's score for a task is its highest for a query of the task.

    Memory: a list of at least 64 rows per query or task, twice as long as its share of `count`,
    longer where many want the same rows; and blocks of some 50 MB.

    Args:
        queries: float [Q, d], unit rows.
        pool: float [N, d], unit rows; an array or a memory map, or a sequence of such, whose rows
            are counted through. Rows that are not of unit length are ranked by the dot product,
            with a warning.
        count: Rows to choose; more than there are is a warning, and gives all.
        tasks: A label per query.

    Returns:
        int64 [count], pool indices in the order of selection.

    Raises:
        DataError: There are no queries or no rows, their dimensions differ, `count` is below 1, or
            a row is zero or holds NaN or infinity; names the rows.

    Example:
        >>> pool = np.array([[0.8, 0.6], [0.6, 0.8], [0.96, 0.28]])
        >>> round_robin(np.eye(2), pool, 2).tolist()
        [2, 1]
    """
    return _first(TargetedOrder(queries, pool, tasks=tasks), count)


def global_top(queries: np.ndarray, pool: Arrays, count: int) -> np.ndarray:
    """The `count` rows with the highest score for any query.

    Another rule than :func:`round_robin`, though published code offers it as a faster version of
    that: a query whose scores are low gets nothing. Arguments and errors as there.
    """
    return _first(TargetedOrder(queries, pool, rule="global_top"), count)


def mean_max(
    queries: np.ndarray,
    pool: Arrays,
    count: int,
    *,
    tasks: Sequence[str] | None = None,
) -> np.ndarray:
    """The `count` rows with the highest mean, over tasks, of the highest score within the task.

    The alternative to taking turns in arXiv 2503.01807, table 7; tasks whose scores spread more
    weigh more. Arguments and errors as in :func:`round_robin`.
    """
    return _first(TargetedOrder(queries, pool, tasks=tasks, rule="mean_max"), count)


def _first(order: TargetedOrder, count: int) -> np.ndarray:
    rows = order.first(count).rows
    if len(rows) < count:
        warnings.warn(f"{count} rows were asked for, the pool has {len(rows)}", stacklevel=3)
    return rows


def _turns(best: Best) -> Pulls:
    """Reads the lists rank by rank; of a row that occurs again, that turn is spent."""
    _, firsts = np.unique(best.rows.T, return_index=True)
    rank, group = np.divmod(np.sort(firsts), len(best.rows))
    at = group, rank
    return Pulls(best.rows[at], best.queries[at], rank + 1, best.scores[at])


def similarity_for(
    given: np.ndarray, tasks: Sequence[str] | None, rule: Rule, dimensions: int
) -> Similarity:
    """The scores that a rule goes by.

    Raises:
        DataError: As in :class:`TargetedOrder`.
    """
    queries = Vectors(given, "queries")
    if queries.dimensions != dimensions:
        raise DataError(
            f"queries have {queries.dimensions} dimensions, the rows of the pool {dimensions}",
            where="queries",
            fix="embed both with the same model",
        )
    if tasks is not None and len(tasks) != len(queries):
        raise DataError(
            f"{len(tasks)} tasks for {len(queries)} queries",
            where="tasks",
            fix="give one task label per query",
        )
    rows = np.arange(len(queries))
    values = queries.take(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = exact_dots(values, values)
    bad = ~((squares > 1e-30) & (squares < 1e30))
    if bad.any():
        queries.refuse(rows[bad])
    stretched = int((np.abs(np.sqrt(squares) - 1) > UNIT).sum())
    if stretched:
        _warn_of_lengths(stretched, "queries")
    each: Sequence[Hashable] = range(len(queries)) if tasks is None else tasks
    labels = [None] * len(queries) if rule == "global_top" else each
    return Similarity(queries, labels, mean=rule == "mean_max")


def _checked(allowed: np.ndarray, total: int) -> np.ndarray:
    """The allowed rows in ascending order, each once."""
    rows = np.unique(allowed)
    if len(rows) and (rows.dtype.kind not in "iu" or rows[0] < 0 or rows[-1] >= total):
        raise DataError(f"the allowed rows must be row numbers below {total}", where="allowed")
    return rows.astype(np.int64)


def _warn_of_lengths(count: int, what: str) -> None:
    warnings.warn(
        f"{count} rows of {what} are not of unit length: scores are dot products, not cosines",
        stacklevel=4,
    )
