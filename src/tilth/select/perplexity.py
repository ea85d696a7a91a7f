"""Selection by perplexity: what a base model finds hardest, middling or easiest to predict."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import Rows
from tilth.data.example import Example
from tilth.method import ModelRef, Work
from tilth.models.sizes import reading
from tilth.select._selector import Ranking, Selector, by_score

__all__ = ["Perplexity"]


class Perplexity(Selector):
    """Chooses the rows with the highest, the middle or the lowest loss under a model.

    The loss of a row of T tokens is

        L = - 1/T  sum over t of  log p(x_t | x_1 ... x_(t-1))

    and its perplexity ``exp(L)``, which orders the rows in the same way. ``keep: top`` and
    ``keep: mid`` are Top-PPL and Mid-PPL of Ivison et al. 2025 (arXiv:2503.01807): both order by
    falling loss of the whole sequence, question included; ``mid`` starts at row ``floor(0.33 N)``
    of that order and takes ``count`` rows from there, as the code beside that paper does, so that
    it is not centred. ``over: answer`` takes the answer's tokens alone, behind the question: the
    perplexity baseline of Deita (Liu et al. 2023, arXiv:2312.15685). ``keep: lowest`` is our
    addition.

    Conversations are put as plain ``Question: ... Answer: ...`` text. What is longer than
    ``max_length`` (2,048 tokens in that paper's code) or than the model's context is cut at its
    end; how many rows that are is counted. Every loss goes to a cache as soon as it is there, so
    that a killed run scores only the rest. Equal losses keep their order in the pool.

    Example:
        >>> Perplexity(pool="pool.jsonl", count=500, keep="mid").to("chosen")  # doctest: +SKIP
    """

    name: ClassVar = "perplexity"
    example: ClassVar[dict[str, Any]] = {"pool": "{rows}", "count": 2, "model": "{model}"}

    model: ModelRef = Field("seedling:small", description="The base model that reads the rows.")
    keep: Literal["top", "mid", "lowest"] = Field("top", description="Which losses.")
    over: Literal["whole", "answer"] = Field("whole", description="Whose tokens count.")
    max_length: int = Field(2048, ge=16, description="Longest text in tokens.")
    batch_size: int = Field(32, ge=1, description="Rows per batch.")

    def estimate(self) -> dict[str, float]:
        """One pass over the pool."""
        return reading(self.pool, self.model)

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order of the losses."""
        from tilth.models import engine, require
        from tilth.select._losses import Cutter, Pair, losses, question_of, text_of

        cache = work.scratch / "answers.jsonl"
        reader = engine(
            self.model,
            ledger=work.ledger,
            cache=cache,
            batch_size=self.batch_size,
            long_prompts="cut",
            progress=False,
        )
        require(reader, "score")
        fit = Cutter.of(reader, self.max_length)

        def ask(row: Example) -> list[Pair]:
            return [("", text_of(row.messages)) if self.over == "whole" else question_of(row)]

        found = losses(pool, allowed, ask, lambda pairs: reader.score(fit(pairs)), "losses")[:, 0]
        # floor(0.33 N), as published: of a hundred rows the window begins at the thirty-fourth.
        start = int(0.33 * len(allowed)) if self.keep == "mid" else 0
        notes = (f"{fit.cut} rows were cut to {fit.limit} tokens",) if fit.cut else ()
        return by_score(
            found,
            allowed,
            "loss",
            lowest=self.keep == "lowest",
            start=start,
            metrics={"mean_loss": float(np.mean(found[allowed])), "cut": fit.cut},
            notes=notes,
        )
