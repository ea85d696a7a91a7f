"""Selection by length: the cheap baseline that is known to be hard to beat."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import read
from tilth.method import DataRef, Method, Outcome, Work
from tilth.select._keep import keep_rows, require

__all__ = ["Length"]


class Length(Method):
    """Chooses the rows with the longest, the shortest or the most ordinary answers.

    Zhao et al. 2024 (arXiv 2402.04833) keep the 1,000 longest answers of 52K and beat much dearer
    selections; ``count`` and ``keep`` default to that. They count tokens of one tokenizer; we count
    words, which needs none. ``middle`` keeps the rows nearest to the median length. Equal lengths
    keep their order in the pool.

    Example:
        >>> Length(data="pool.jsonl", count=500).to("chosen")  # doctest: +SKIP
    """

    verb: ClassVar = "select"
    name: ClassVar = "length"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {"data": "{rows}", "count": 2}

    data: DataRef = Field(description="The pool to choose from.")
    count: int = Field(1000, ge=1, description="Rows to keep.")
    keep: Literal["longest", "shortest", "middle"] = Field("longest", description="Which rows.")
    by: Literal["words", "characters"] = Field("words", description="Unit of length. Our choice.")

    def run(self, work: Work) -> Outcome:
        """Writes the chosen rows in pool order.

        Raises:
            DataError: The pool is smaller than ``count``.
        """
        pool = read(self.data, rejected_to=work.folder / "rejected.jsonl", say=work.say)
        require(self.count, pool, self.data)
        lengths = np.fromiter((self._length(row.answer) for row in pool), np.int64, len(pool))
        distance = {
            "longest": -lengths,
            "shortest": lengths,
            "middle": np.abs(lengths - np.median(lengths)),
        }[self.keep]
        order = np.argsort(distance, kind="stable")
        rank = np.empty(len(pool), np.int64)
        rank[order] = np.arange(1, len(pool) + 1)
        kept = rank <= self.count

        def reason(row: int) -> str:
            return f"{lengths[row]} {self.by}: rank {rank[row]} of {len(pool)} ({self.keep})"

        return keep_rows(work, pool, kept, reason, scores=lengths, name=self.by)

    def _length(self, answer: str) -> int:
        return len(answer.split()) if self.by == "words" else len(answer)
