"""Selection by length: the cheap baseline that is known to be hard to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import Rows
from tilth.method import ModelRef, Work
from tilth.select._selector import Ranking, Selector, by_score

__all__ = ["Length"]


class Length(Selector):
    """Chooses the rows with the longest, the shortest or the most ordinary answers.

    Zhao et al. 2024 (arXiv 2402.04833) keep the 1,000 longest answers of 52K and beat much dearer
    selections; ``count`` and ``keep`` default to that. They count tokens of one tokenizer; by
    default we count words, which needs none, and with ``by: tokens`` those of ``tokenizer``.
    ``middle`` keeps the rows nearest to the median length. Equal lengths keep their order in the
    pool.

    Example:
        >>> Length(pool="pool.jsonl", count=500).to("chosen")  # doctest: +SKIP
    """

    name: ClassVar = "length"
    example: ClassVar[dict[str, Any]] = {"pool": "{rows}", "count": 2}

    keep: Literal["longest", "shortest", "middle"] = Field("longest", description="Which rows.")
    by: Literal["words", "characters", "tokens"] = Field(
        "words", description="Unit of length. Our choice."
    )
    tokenizer: ModelRef = Field("seedling:small", description="Model whose tokens are counted.")

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order of the answers' lengths."""
        measure = self._measure()
        lengths = np.fromiter((measure(row.answer) for row in pool), np.int64, len(pool))
        if self.keep != "middle":
            return by_score(lengths, allowed, self.by, lowest=self.keep == "shortest")
        middle = np.median(lengths[allowed])
        order = by_score(np.abs(lengths - middle), allowed, self.by, lowest=True)
        return replace(
            order,
            scores=lengths,
            reason=lambda row, kept: f"{lengths[row]} {self.by}, the median is {middle:g}",
        )

    def _measure(self) -> Callable[[str], int]:
        """What gives an answer's length."""
        if self.by == "words":
            return lambda answer: len(answer.split())
        if self.by == "characters":
            return len
        from tilth.models.load import load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        return lambda answer: len(tokenizer(answer, **plain).input_ids)
