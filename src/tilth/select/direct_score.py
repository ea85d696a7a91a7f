"""Direct scoring: a judge sees one row at a time and gives it a number."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.data import Rows
from tilth.data.example import Example, Message
from tilth.data.rating import Aspect
from tilth.method import ModelRef, Work
from tilth.models.prompts import Prompts, is_compact
from tilth.models.sizes import reading
from tilth.select._asking import Fitter, answers_to_each, rank_scored, turns_of
from tilth.select._selector import Ranking, Selector

__all__ = ["DirectScore", "read_number"]

_HIGHEST: dict[Aspect, tuple[int, int]] = {"complexity": (1, 10), "quality": (0, 5)}

_COMPLEXITY = """\
Rate the difficulty and complexity of the following question on a scale from 1 to 10, where 10 is \
the hardest. Answer with the score alone.

#Question#: {query}

Score:"""

_QUALITY = """\
Rate the accuracy of the response to the instruction on a scale from 0 to 5, where 5 is the best. \
Answer with the score alone.

#Instruction#: {query}

#Response#: {response}

Score:"""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class DirectScore(Selector):
    """Chooses the rows that a judge, who sees one row at a time, gives the highest scores.

    The baseline of Deita (arXiv 2312.15685, section 2): complexity of the instruction from 1 to 10,
    or quality of the response from 0 to 5 as in AlpaGasus (Chen et al. 2023, arXiv 2307.08701). A
    judge that cannot compare gives nearly all rows the same high score: ``saturated`` is the share
    of rows with the commonest one. Dialogues get the mean over their turns, which is our choice,
    as is the wording. An answer without a score in range is counted, and its row cannot be chosen.
    Equal scores keep their order in the pool.

    A seedling is asked in its teaching turns, which go from 1 to 6.

    Example:
        >>> DirectScore(pool="pool.jsonl", model="judge").to("out")  # doctest: +SKIP
    """

    name: ClassVar = "direct_score"
    example: ClassVar[dict[str, Any]] = {"pool": "{rows}", "count": 2, "model": "{teacher}"}

    model: ModelRef = Field("seedling:teacher", description="The judge.")
    aspect: Aspect = Field("quality", description="What it scores: complexity or quality.")
    prompts: Prompts = Field(
        "auto", description="Prompt set; auto: compact for seedlings, English for all others."
    )
    max_length: int = Field(2048, ge=32, description="Longest prompt and answer in tokens.")
    max_new_tokens: int = Field(8, ge=1, description="Tokens of an answer.")
    batch_size: int = Field(32, ge=1, description="Questions in the judge at once; speed only.")

    def estimate(self) -> dict[str, float]:
        """One pass over the pool."""
        return reading(self.pool, self.model)

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order of the judge's scores.

        Raises:
            DataError: More than a tenth of the rows got no score.
        """
        from tilth.models import Sampling, engine

        judge = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "answers.jsonl",
            batch_size=self.batch_size,
            progress=False,
        )
        compact = is_compact(self.prompts, self.model)
        low, high = (1, 6) if compact else _HIGHEST[self.aspect]
        fit = Fitter(judge, self._prompt(compact), self.max_length, self.max_new_tokens)

        def ask(row: Example) -> list[list[Message]]:
            return [fit(query, reply) for query, reply in turns_of(row)]

        found: list[list[float | None]] = [[] for _ in range(len(pool))]
        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        for row, completion in answers_to_each(judge, pool, allowed, ask, sampling):
            found[row].append(read_number(completion.text, low, high))
        scores = np.full(len(pool), np.nan)
        why = {}
        for row in allowed.tolist():
            values = [value for value in found[row] if value is not None]
            if len(values) == len(found[row]) and values:
                scores[row] = np.mean(values)
            else:
                why[row] = f"no score: the judge's answer holds no number from {low} to {high}"
        if why:
            work.say(f"{len(why)} of {len(allowed)} rows got no score from the judge")
        given = scores[np.isfinite(scores)]
        counts = np.unique(given, return_counts=True)[1]
        metrics = {
            "mean_score": float(given.mean()) if len(given) else 0.0,
            "saturated": float(counts.max() / len(given)) if len(given) else 0.0,
            "without_a_score": len(why),
            "shortened": fit.cut,
        }
        name = f"direct_{self.aspect}"
        return rank_scored(scores, allowed, name, why, metrics=metrics)

    def _prompt(self, compact: bool) -> Any:
        if compact:
            from tilth.almanac.teaching import turn

            if self.aspect == "complexity":
                return lambda query, response: turn("rate_task", task=query)
            return lambda query, response: turn("rate_reply", task=query, reply=response)
        form = _COMPLEXITY if self.aspect == "complexity" else _QUALITY
        return lambda query, response: form.format(query=query, response=response)


def read_number(text: str, low: float, high: float) -> float | None:
    """The first number of an answer, where it lies in the scale.

    Example:
        >>> read_number("Score: 4.5 of 5", 0, 5), read_number("eleven, or 11", 1, 10)
        (4.5, None)
    """
    found = _NUMBER.search(text)
    value = float(found.group()) if found else float("nan")
    return value if low <= value <= high else None
