"""Scores of pool rows for queries or tasks: fast with a known error, and exact where asked.

Axes: Q queries, G groups (queries, tasks, or the one group of all), B rows, d dimensions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from tilth.select._vectors import PIECE, Vectors, exact_dots, rounding

__all__ = ["Similarity"]


class Similarity:
    """Scores for groups of queries: the highest of a group, or the mean of these.

    Args:
        queries: [Q, d].
        labels: The group of each query; groups count in the order of first appearance.
        mean: One score only, the mean over groups of the highest score of each.
    """

    def __init__(self, queries: Vectors, labels: Sequence[Hashable], *, mean: bool = False) -> None:
        number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        group = np.array([number[label] for label in labels])
        self._query = np.argsort(group, kind="stable")
        self._group = group[self._query]
        self._begins = np.searchsorted(self._group, np.arange(len(number) + 1))
        self._exact = queries.take(self._query)
        self._fast = self._exact.astype(np.float32)
        self._mean = mean
        self._alone = len(number) == len(labels) and not mean
        lengths = np.sqrt(exact_dots(self._exact, self._exact))
        self._errors = rounding(queries.dimensions) * self._highest(lengths[:, None])[:, 0]
        self.groups = 1 if mean else len(number)
        self.queries = len(labels)

    def fast(self, block: np.ndarray) -> np.ndarray:
        """float32 [G, B], the scores of float32 rows [B, d] up to :meth:`errors`."""
        scores = self._fast @ block.T
        if self._alone:
            return scores
        highest = self._highest(scores)
        if self._mean:
            return highest.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
        return highest

    def errors(self, longest: float) -> np.ndarray:
        """float64 [G], how far a fast score may lie from the exact one for rows up to `longest`."""
        return (self._errors.mean(keepdims=True) if self._mean else self._errors) * longest

    def exact(
        self, pool: Vectors, groups: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Canonical scores float64 [n] of n pairs, and the query int64 [n] that each is due to.

        Args:
            pool: Where the rows are read, in ascending order.
            groups: int [n].
            rows: int [n], pool indices.
        """
        scores = np.empty(len(rows))
        queries = np.empty(len(rows), np.int64)
        order = np.argsort(rows, kind="stable")
        step = max(1, PIECE // pool.dimensions)
        for part in (order[first : first + step] for first in range(0, len(order), step)):
            distinct, at = np.unique(rows[part], return_inverse=True)
            vectors = pool.take(distinct)
            if self._alone:
                scores[part] = exact_dots(self._exact[groups[part]], vectors[at])
                queries[part] = self._query[groups[part]]
            else:
                scores[part], queries[part] = self._exact_highest(vectors, groups[part], at)
        return scores, queries

    def _exact_highest(
        self, vectors: np.ndarray, groups: np.ndarray, at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same for groups of several queries, only some of which can be the highest."""
        fast = self._fast @ vectors.astype(np.float32).T
        longest = np.sqrt(exact_dots(vectors, vectors))
        floor = self._highest(fast) - 2 * self._errors[:, None] * longest
        possible = fast >= floor[self._group]
        if not self._mean:
            asked = np.zeros(floor.shape, bool)
            asked[groups, at] = True
            possible &= asked[self._group]
        scores = np.full(fast.shape, -np.inf)
        query, row = np.nonzero(possible)
        step = max(1, PIECE // vectors.shape[1])
        for first in range(0, len(query), step):
            q, v = query[first : first + step], row[first : first + step]
            scores[q, v] = exact_dots(self._exact[q], vectors[v])
        if self._mean:
            highest = np.ascontiguousarray(self._highest(scores).T)
            mean = highest.sum(axis=1) / highest.shape[1]
            return mean[at], scores[np.argsort(self._query)].argmax(axis=0)[at]
        whose = np.stack([scores[a:b].argmax(axis=0) + a for a, b in self._spans()])[groups, at]
        return scores[whose, at], self._query[whose]

    def _highest(self, scores: np.ndarray) -> np.ndarray:
        """[groups, B] from [Q, B]."""
        return np.stack([scores[a:b].max(axis=0) for a, b in self._spans()])

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self._begins[:-1].tolist(), self._begins[1:].tolist(), strict=True))
