"""Selection by instruction-following difficulty: how little a question helps with its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import Rows
from tilth.errors import DataError
from tilth.method import ModelRef, Work
from tilth.models.sizes import reading
from tilth.select._selector import Ranking, Selector, by_score

__all__ = ["IFD"]


class IFD(Selector):
    """Chooses the rows whose answer the question makes hardly easier to predict.

    With the mean loss L of the answer A behind its question Q, and of the answer alone,

        IFD = L(A | Q) / L(A)

    and the rows with the highest ratio come first (the IFD baseline of Ivison et al. 2025,
    arXiv:2503.01807, section 4, who take a model first trained on 1,000 rows of the pool). To have
    such a model, draw rows with ``select.random``, tune on them with ``tune.sft``, and give the
    result as ``model`` with ``form: chat``. A base model reads the ``plain`` form.

    ``discard`` leaves out ratios of 1 or more, where the question makes the answer no easier. That
    Cherry_LLM does so is hearsay that we could not verify; it is off by default.

    In the chat form the answer alone is a conversation of that one turn. What is longer than
    ``max_length`` (our choice: as ``select.perplexity``) or the model's context is cut, the answer
    in both conditions alike. Every loss goes to a cache as soon as it is there, so that a killed
    run scores only the rest. Equal ratios keep their order in the pool.

    Example:
        >>> IFD(pool="pool.jsonl", count=500, model="runs/tuned").to("chosen")  # doctest: +SKIP
    """

    name: ClassVar = "ifd"
    example: ClassVar[dict[str, Any]] = {"pool": "{rows}", "count": 2, "model": "{model}"}

    model: ModelRef = Field("seedling:small", description="The model, best a little tuned.")
    form: Literal["plain", "chat"] = Field("plain", description="How rows are put to the model.")
    discard: bool = Field(False, description="Leave out ratios of 1 or more.")
    max_length: int = Field(2048, ge=16, description="Longest text in tokens.")
    batch_size: int = Field(32, ge=1, description="Rows per batch.")

    def estimate(self) -> dict[str, float]:
        """Two passes: the rows, and their answers alone (about half of the tokens)."""
        return {name: 1.5 * amount for name, amount in reading(self.pool, self.model).items()}

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order of the ratios.

        Raises:
            DataError: Every ratio is 1 or more and ``discard`` is set.
        """
        from tilth.models import engine, require
        from tilth.select._ratios import answer_losses

        reader = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "answers.jsonl",
            batch_size=self.batch_size,
            long_prompts="cut",
            progress=False,
        )
        require(reader, "score" if self.form == "plain" else "score_chat")
        behind, alone, cut, limit = answer_losses(
            pool, allowed, reader, form=self.form, max_length=self.max_length
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = behind / alone
        no_easier = np.flatnonzero(ratios >= 1)
        kept = np.setdiff1d(allowed, no_easier) if self.discard else allowed
        if not len(kept):
            raise DataError(
                "every ratio is 1 or more: to this model no question makes its answer easier",
                where="discard",
                fix="tune the model a little first, or set discard to false",
            )
        ranking = by_score(
            ratios,
            kept,
            "IFD",
            metrics={
                "mean_loss_behind_question": float(np.mean(behind[allowed])),
                "mean_loss_alone": float(np.mean(alone[allowed])),
                "ratios_of_1_or_more": len(no_easier),
                "cut": cut,
            },
            notes=(f"{cut} texts were cut to {limit} tokens",) if cut else (),
        )
        if not self.discard:
            return ranking
        dropped = set(no_easier.tolist())

        def reason(row: int, chosen: bool) -> str:
            if row in dropped:
                return f"IFD {ratios[row]:.4g}: 1 or more, left out"
            return ranking.reason(row, chosen)

        return replace(ranking, reason=reason)
