"""Score: a scorer's opinion of every turn, written into the rows of a pool once and for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.data import Rows, read, write_rows
from tilth.data.example import Example
from tilth.errors import RecipeError
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models.prompts import Prompts
from tilth.models.sizes import reading
from tilth.select._scoring import FIELDS, TurnScores, rated

__all__ = ["Score"]


class Score(Method):
    """Writes the scores of Deita's scorers into every row (Liu et al. 2024, arXiv 2312.15685).

    Per user turn the scorer reads the turn, for quality with the reply, and the score is the mean
    of the digits 1 to 6 under their probabilities as its next token. The rows keep their order and
    get ``meta["complexity_scores"]`` and ``meta["quality_scores"]``, lists with one number per user
    turn, as Deita's own files have them; a turn without any digit among the scorer's likeliest next
    tokens has null, and is counted. ``select.deita`` reads these lists: choose again with another
    rule or threshold without scoring again.

    Example:
        >>> Score(pool="pool.jsonl", quality_scorer="scorer").to("scored")  # doctest: +SKIP
    """

    verb: ClassVar = "select"
    name: ClassVar = "score"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {"pool": "{rows}", "complexity_scorer": "{teacher}"}

    pool: DataRef = Field(description="The rows to score.")
    complexity_scorer: ModelRef | None = Field(None, description="Scores instructions, 1 to 6.")
    quality_scorer: ModelRef | None = Field(None, description="Scores responses, 1 to 6.")
    prompts: Prompts = Field(
        "auto", description="Scorer's form; compact: teaching turns, for a seedling as it ships."
    )
    max_length: int = Field(2048, ge=32, description="Longest prompt in tokens.")
    batch_size: int = Field(32, ge=1, description="Turns in the scorer at once; speed only.")

    def estimate(self) -> dict[str, float]:
        """One pass over the pool per scorer."""
        total: dict[str, float] = {}
        for ref in (self.complexity_scorer, self.quality_scorer):
            for name, amount in reading(self.pool, ref).items() if ref else ():
                total[name] = total.get(name, 0.0) + amount
        return total

    def run(self, work: Work) -> Outcome:
        """Writes ``rows.jsonl`` and ``rejected.jsonl``.

        Raises:
            RecipeError: No scorer is named.
            EngineError: A scorer's digits are not one token each.
        """
        scorers = {
            "complexity": self.complexity_scorer,
            "quality": self.quality_scorer,
        }
        named = {aspect: ref for aspect in FIELDS if (ref := scorers[aspect])}
        if not named:
            raise RecipeError(
                "there is no scorer", self.full_name(), "name complexity_scorer or quality_scorer"
            )
        rows = read(self.pool, rejected_to=work.folder / "rejected.jsonl", say=work.say)
        found = {
            FIELDS[aspect]: rated(
                rows,
                np.arange(len(rows)),
                ref,
                aspect,
                work,
                prompts=self.prompts,
                max_length=self.max_length,
                batch_size=self.batch_size,
            )
            for aspect, ref in named.items()
        }
        write_rows(work.folder / "rows.jsonl", _with(rows, found))
        means = {
            name: float(np.nanmean([v for values in scores.lists for v in values]))
            for name, scores in found.items()
        }
        told = ", ".join(f"mean {name} {mean:.2f}" for name, mean in means.items())
        work.say(f"{len(rows)} rows scored: {told}")
        return Outcome(
            metrics={
                "rows_out": len(rows),
                "means": means,
                **{name: scores.metrics for name, scores in found.items()},
            },
            funnel=[("read", rows.records), ("scored", len(rows))],
        )


def _with(rows: Rows, found: dict[str, TurnScores]) -> Iterator[Example]:
    for index, row in enumerate(rows):
        lists = {
            name: [value if np.isfinite(value) else None for value in scores.lists[index]]
            for name, scores in found.items()
        }
        yield Example(row.messages, {**row.meta, **lists}, row.chosen, row.rejected, row.id)
