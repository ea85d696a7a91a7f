"""Rows with something left out, as a file to look at, to publish or to hand to any trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.data.read import Rows
from tilth.data.single_task import Counting, Task, single_task
from tilth.data.transforms import no_rephrase, response_only, shuffled_instructions
from tilth.data.write import write_rejected
from tilth.method import DataRef, Method, Outcome, Work

__all__ = ["Transform"]


class Transform(Method):
    """Writes the data of implicit instruction tuning: answers alone, one task, other pairings.

    ``response_only`` blanks every user turn; ``shuffled_instructions`` puts every answer behind
    another row's question, anew in each epoch; ``no_rephrase`` leaves out the rows whose answers
    begin by saying the question again, or (``cut``) that sentence; ``single_task`` makes
    conversations of MBPP, GSM8K, poems, recipes or chess games. Train on the rows with
    :class:`~tilth.tune.sft.SFT` or any trainer that gives loss to answers only.

    Hewitt et al. 2024 (arXiv:2409.14254): sections 4.2 and 4.3, seed 89 and one shuffle an epoch in
    the released script, whose plain permutation is ``official``. How a repeated question is found
    without labels is our choice (:func:`tilth.data.transforms.rephrases`).

    Example:
        >>> Transform(data="rows.jsonl", how="response_only").to("blank")  # doctest: +SKIP
    """

    verb: ClassVar = "generate"
    name: ClassVar = "transform"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {"data": "{rows}", "how": "shuffled_instructions"}

    data: DataRef = Field(description="The rows, or the data set of a single task.")
    how: Literal["response_only", "single_task", "shuffled_instructions", "no_rephrase"] = Field(
        "response_only", description="What is left out or exchanged."
    )
    task: Task = Field("rows", description="single_task: how records become conversations.")
    count: int | None = Field(None, ge=1, description="single_task: records from the top.")
    counting: Counting = Field("scanned", description="single_task: what is counted.")
    epochs: int = Field(1, ge=1, description="shuffled_instructions: pairings, one per epoch.")
    pairing_seed: int = Field(89, ge=0, description="shuffled_instructions: names the pairings.")
    official: bool = Field(
        False, description="shuffled_instructions: rows may keep their own question by chance."
    )
    cut: bool = Field(False, description="no_rephrase: keep the row without its first sentence.")

    def run(self, work: Work) -> Outcome:
        """Writes ``rows.jsonl``.

        Raises:
            DataError: The data cannot be read, or lacks a column of the task.
        """
        rejected = work.folder / "rejected.jsonl"
        if self.how == "single_task":
            found = single_task(self.data, self.task, count=self.count, counting=self.counting)
            write_rejected(rejected, found.rejections)
            before, made = found.scanned, iter(found.rows)
            work.say(f"{sum(found.skipped.values())} of {before} records were rejected")
        else:
            rows = read(self.data, rejected_to=rejected, say=work.say)
            before, made = len(rows), self._made(rows)
        after = write_rows(work.folder / "rows.jsonl", made)
        work.say(f"{self.how}: {before:,} rows in, {after:,} out")
        return Outcome(
            metrics={"rows_in": before, "rows_out": after, "how": self.how},
            funnel=[("read", before), ("written", after)],
        )

    def _made(self, rows: Rows) -> Iterator[Example]:
        if self.how == "response_only":
            return map(response_only, rows)
        if self.how == "no_rephrase":
            return no_rephrase(rows, cut=self.cut)
        return shuffled_instructions(rows, self.pairing_seed, self.epochs, official=self.official)
