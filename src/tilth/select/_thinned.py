"""Going through a pool in order and keeping what is unlike all kept before, with a reason each."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilth.method import Work
from tilth.select.diverse import Reasons, greedy_diverse

__all__ = ["Thinned"]


@dataclass
class Thinned:
    """What was kept of an order, and what is to be said of every other row.

    Attributes:
        total: Rows of the pool, N.
        order: int [M], the rows that may be kept, best first.
        vectors: float [N, d] unit rows; None: no filter.
        threshold: Highest cosine to a kept row.
        turns: Per row its number of scored turns.
        why: Row -> why it is not in the order.
        metrics: For the manifest; filled by :meth:`first`.
    """

    total: int
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    vectors: np.ndarray | None = None
    threshold: float | None = None
    turns: list[int] = field(default_factory=list)
    why: dict[int, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    _asked: int = -1
    _kept: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    _rejected: Reasons | None = None
    _rank: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def first(self, count: int) -> np.ndarray:
        """int [K], the first `count` rows that the filter keeps."""
        if count == self._asked:
            return self._kept
        self._asked = count
        self._rank = np.full(self.total, -1)
        self._rank[self.order] = np.arange(1, len(self.order) + 1)
        similar = 0
        if self.vectors is None or self.threshold is None or not len(self.order):
            self._kept = self.order[:count]
        else:
            with warnings.catch_warnings():  # what it warns of, say() tells in the step's words
                warnings.simplefilter("ignore", UserWarning)
                self._kept, self._rejected = greedy_diverse(
                    self.vectors, self.order, count, self.threshold
                )
            similar = int((self._rejected.similar_to >= 0).sum())
        self.metrics |= {
            "left_out": len(self.why),
            "looked_at": len(self._kept) + similar,
            "too_similar": similar,
            "turns": _spread(self.turns, range(self.total)),
            "turns_chosen": _spread(self.turns, self._kept.tolist()),
        }
        return self._kept

    def say(self, work: Work, count: int) -> None:
        """Says where the budget cannot be filled, with both numbers."""
        if len(self._kept) < count:
            work.say(
                f"{len(self._kept)} of the {count} rows asked for: of {len(self.order)} rows "
                f"{self.metrics['too_similar']} have a cosine above {self.threshold} to a kept one"
            )

    def reason(self, row: int, kept: bool) -> str:
        """Why a row was kept or not."""
        if row in self.why:
            return self.why[row]
        place = f"rank {self._rank[row]} of {len(self.order)}"
        if kept or self._rejected is None or row not in self._rejected:
            return place
        return f"{place}; {self._rejected[row]}"

    def details(self, row: int) -> dict[str, Any]:
        """The kept row that it is too similar to."""
        if self._rejected is None or row not in self._rejected:
            return {}
        found = self._rejected[row]
        if found.similar_to is None:
            return {}
        return {"similar_to": found.similar_to, "similarity": found.similarity}


def _spread(turns: list[int], rows: Iterable[int]) -> dict[str, int]:
    """Number of turns -> rows."""
    counted = Counter(turns[row] for row in rows)
    return {str(n): counted[n] for n in sorted(counted) if n}
