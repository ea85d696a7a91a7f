"""Random selection: the baseline that every other selection has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.data import Rows
from tilth.errors import DataError
from tilth.method import Work
from tilth.select._selector import Ranking, Selector

__all__ = ["Random"]


class Random(Selector):
    """Chooses rows uniformly without replacement, if asked in equal shares of a meta field.

    With ``balance`` each value of that field gets the same share of ``count``; a value with fewer
    rows gives all it has, and the others share the rest.

    Example:
        >>> Random(pool="pool.jsonl", count=500, balance="skill").to("chosen")  # doctest: +SKIP
    """

    name: ClassVar = "random"
    example: ClassVar[dict[str, Any]] = {"pool": "{rows}", "count": 2}

    balance: str = Field("", description="Meta field to give equal shares to; empty: none.")

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """A random order; with ``balance`` the groups take turns, so that its beginnings balance.

        Raises:
            DataError: A row lacks the ``balance`` field.
        """
        groups = self._groups(pool, allowed) if self.balance else {"": allowed}
        mixed = [work.stream("rows", name).permutation(rows) for name, rows in groups.items()]
        turns = work.stream("groups").permutation(len(groups))
        rounds = np.concatenate([np.arange(len(rows)) for rows in mixed])
        turn = np.concatenate([np.full(len(rows), t) for rows, t in zip(mixed, turns, strict=True)])
        order = np.concatenate(mixed)[np.lexsort((turn, rounds))]
        return Ranking(
            lambda count: order[:count],
            reason=lambda row, kept: "drawn" if kept else "not drawn",
        )

    def _groups(self, pool: Rows, allowed: np.ndarray) -> dict[str, np.ndarray]:
        groups: dict[str, list[int]] = {}
        for index in allowed.tolist():
            example = pool[index]
            value = example.meta.get(self.balance)
            if value is None:
                raise DataError(
                    f"the row has no {self.balance!r} in its meta",
                    where=f"{self.pool}, row {index}",
                    fix=f"balance by one of {sorted(example.meta) or 'nothing'}",
                )
            groups.setdefault(str(value), []).append(index)
        return {name: np.asarray(groups[name]) for name in sorted(groups)}
