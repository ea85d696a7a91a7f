"""Selection by similarity to queries: round-robin, global top and mean-max, exact to the last bit.

The score of a pool row for a query is the dot product of the two rows as given (for unit rows the
cosine). Where the order of two rows hangs on it, the **canonical score** decides: both rows in
float64, their products summed over the dimensions by ``numpy.sum``. Equal canonical scores go by
pool index, the lower first. The order therefore depends on the numbers in the rows alone: not on
blocks, threads, shards, or the type that they are stored in.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tilth.errors import DataError

__all__ = ["Pulls", "TargetedOrder", "global_top", "mean_max", "round_robin"]

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


class TargetedOrder:
    """The order in which a rule takes rows of a pool, computed as deep as somebody asks.

    Args:
        queries: float [Q, d], unit rows.
        pool: float [N, d], unit rows; an array or a memory map, or a sequence of such, whose rows
            are counted through.
        tasks: A label per query; ``None``: under round-robin every query takes its own turns.
        rule: See :func:`round_robin`, :func:`global_top`, :func:`mean_max`.
        allowed: int [M], the rows that may be chosen; ``None``: all.

    Example:
        >>> order = TargetedOrder(np.eye(2), np.eye(2)[[0, 1, 0]])
        >>> order.first(2).rows.tolist(), order.first(3).rows.tolist()
        ([0, 1], [0, 1, 2])
    """

    def __init__(
        self,
        queries: np.ndarray,
        pool: np.ndarray | Sequence[np.ndarray],
        *,
        tasks: Sequence[str] | None = None,
        rule: Rule = "round_robin",
        allowed: np.ndarray | None = None,
    ) -> None:
        if len(queries) == 0:
            raise DataError("there are no queries", where="queries", fix="give at least one")
        arrays = [pool] if isinstance(pool, np.ndarray) else list(pool)
        rows = np.concatenate([np.asarray(array, np.float64) for array in arrays])
        self._allowed = np.arange(len(rows)) if allowed is None else np.asarray(allowed)
        wanted = np.asarray(queries, np.float64)
        scores = np.stack([np.sum(query * rows[self._allowed], axis=1) for query in wanted])
        labels = list(range(len(wanted))) if tasks is None else list(tasks)
        if rule == "global_top":
            labels = [0] * len(wanted)
        names = list(dict.fromkeys(labels))
        groups = [np.array([q for q, label in enumerate(labels) if label == t]) for t in names]
        best = np.stack([group[scores[group].argmax(0)] for group in groups])
        merged = np.take_along_axis(scores, best, 0)
        if rule == "mean_max":
            merged, best = merged.mean(0, keepdims=True), scores.argmax(0)[None]
        ranked = np.argsort(-merged, axis=1, kind="stable")
        _, firsts = np.unique(ranked.T.ravel(), return_index=True)
        turn = np.sort(firsts)
        group, rank = turn % len(merged), turn // len(merged)
        row = ranked[group, rank]
        self._pulls = Pulls(self._allowed[row], best[group, row], rank + 1, merged[group, row])

    def first(self, count: int) -> Pulls:
        """The first `count` rows of the order, all where there are fewer.

        Raises:
            DataError: `count` is below 1.
        """
        if count < 1:
            raise DataError(f"count is {count}", where="count", fix="ask for at least one row")
        return self._pulls[:count]


def round_robin(
    queries: np.ndarray,
    pool: np.ndarray | Sequence[np.ndarray],
    count: int,
    *,
    tasks: Sequence[str] | None = None,
) -> np.ndarray:
    """The first `count` rows when queries take turns, each its next best row (arXiv 2503.01807).

    A row that is taken already is dropped, but **the turn is spent**. With `tasks` the tasks take
    turns in the order of first appearance, and a row's score for a task is its highest for one of
    the task's queries.

    Returns:
        int64 [count], pool indices in the order of selection.
    """
    return _first(TargetedOrder(queries, pool, tasks=tasks), count)


def global_top(
    queries: np.ndarray, pool: np.ndarray | Sequence[np.ndarray], count: int
) -> np.ndarray:
    """The `count` rows with the highest score for any query."""
    return _first(TargetedOrder(queries, pool, rule="global_top"), count)


def mean_max(
    queries: np.ndarray,
    pool: np.ndarray | Sequence[np.ndarray],
    count: int,
    *,
    tasks: Sequence[str] | None = None,
) -> np.ndarray:
    """The `count` rows with the highest mean over tasks of the highest score within a task."""
    return _first(TargetedOrder(queries, pool, tasks=tasks, rule="mean_max"), count)


def _first(order: TargetedOrder, count: int) -> np.ndarray:
    rows = order.first(count).rows
    if len(rows) < count:
        warnings.warn(f"{count} rows were asked for, the pool has {len(rows)}", stacklevel=3)
    return rows
