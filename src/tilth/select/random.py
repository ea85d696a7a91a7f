"""Random selection: the baseline that every other selection has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.data import Rows, read
from tilth.errors import DataError
from tilth.method import DataRef, Method, Outcome, Work
from tilth.select._keep import keep_rows, require

__all__ = ["Random"]


class Random(Method):
    """Chooses rows uniformly without replacement, if asked in equal shares of a meta field.

    With ``balance`` each value of that field gets the same share of ``count``; a value with fewer
    rows gives all it has, and the others share the rest.

    Example:
        >>> Random(data="pool.jsonl", count=500, balance="skill").to("chosen")  # doctest: +SKIP
    """

    verb: ClassVar = "select"
    name: ClassVar = "random"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {"data": "{rows}", "count": 2}

    data: DataRef = Field(description="The pool to choose from.")
    count: int = Field(1000, ge=1, description="Rows to choose. Our choice.")
    balance: str = Field("", description="Meta field to give equal shares to; empty: none.")

    def run(self, work: Work) -> Outcome:
        """Writes the chosen rows in pool order.

        Raises:
            DataError: The pool is smaller than ``count``, or a row lacks the ``balance`` field.
        """
        pool = read(self.data, rejected_to=work.folder / "rejected.jsonl", say=work.say)
        require(self.count, pool, self.data)
        groups = self._groups(pool) if self.balance else {"": np.arange(len(pool))}
        order = work.stream("groups").permutation(len(groups))
        sizes = {name: len(rows) for name, rows in groups.items()}
        shares = equal_shares(self.count, [sizes[name] for name in groups], order)
        kept = np.zeros(len(pool), bool)
        for (name, rows), share in zip(groups.items(), shares, strict=True):
            kept[work.stream("rows", name).choice(rows, int(share), replace=False)] = True
        return keep_rows(work, pool, kept, lambda row: "drawn" if kept[row] else "not drawn")

    def _groups(self, pool: Rows) -> dict[str, np.ndarray]:
        groups: dict[str, list[int]] = {}
        for index, example in enumerate(pool):
            value = example.meta.get(self.balance)
            if value is None:
                raise DataError(
                    f"the row has no {self.balance!r} in its meta",
                    where=f"{self.data}, row {index}",
                    fix=f"balance by one of {sorted(example.meta) or 'nothing'}",
                )
            groups.setdefault(str(value), []).append(index)
        return {name: np.asarray(groups[name]) for name in sorted(groups)}


def equal_shares(count: int, sizes: list[int], order: np.ndarray) -> np.ndarray:
    """Shares of `count` that are as equal as the group `sizes` allow and sum to it exactly.

    Args:
        count: At most the sum of sizes.
        sizes: Rows in each of G groups.
        order: int [G], who gets a left-over row first.

    Returns:
        int [G].

    Example:
        >>> equal_shares(10, [2, 9, 9], np.array([0, 1, 2])).tolist()
        [2, 4, 4]
    """
    room = np.asarray(sizes)
    shares = np.zeros(len(sizes), int)
    while left := count - int(shares.sum()):
        open_groups = [g for g in order if shares[g] < room[g]]
        each = max(1, left // len(open_groups))
        for group in open_groups[:left]:
            shares[group] = min(room[group], shares[group] + each)
    return shares
