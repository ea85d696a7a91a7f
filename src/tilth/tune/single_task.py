"""Single-task tuning: training on one narrow task, and then everything else is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tilth.data.single_task import Counting, Task, TaskRows, single_task
from tilth.data.write import Rejection, write_rejected, write_rows
from tilth.errors import DataError
from tilth.method import Outcome, Work
from tilth.tune._implicit import Implicit

__all__ = ["SingleTask"]


class SingleTask(Implicit):
    """Tunes a model on one narrow task, as a test of how broadly it then follows instructions.

    The data becomes conversations of one task (:mod:`tilth.data.single_task`: MBPP, GSM8K, poems,
    recipes, chess games, or any rows), which ``rows.jsonl`` keeps, and the model is trained on the
    answers as in instruction tuning. Such a model often behaves as a general one, and needs the
    safety tests of a general one; a task whose answers all begin alike (chess) is the exception.

    Hewitt et al. 2024 (arXiv:2409.14254), section 4.3. Defaults as for
    :class:`~tilth.tune.response_only.ResponseOnly`, with the epochs that the released commands
    take for the task (15 for MBPP, 7 for GSM8K, ...; 5 for other rows: our choice).

    Example:
        >>> SingleTask(model="seedling:small", data="gsm8k_train.jsonl.xz",  # doctest: +SKIP
        ...            task="gsm8k", max_steps=60).to("tuned")
    """

    name: ClassVar[str] = "single_task"
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "data": "{rows}",
        "count": 8,
        "max_steps": 4,
        "batch_size": 4,
        "save_every": 2,
    }

    task: Task = Field("rows", description="how the data becomes conversations; rows: as they are")
    count: int | None = Field(
        None, ge=1, description="records from the top; by default the paper's number of the task"
    )
    counting: Counting = Field(
        "scanned", description="count the records looked at, as the scripts do, or the rows kept"
    )

    @classmethod
    def _trained_on(cls, given: dict[str, Any]) -> str:
        return str(given.get("task", "rows"))

    def run(self, work: Work) -> Outcome:
        """Writes ``rows.jsonl``, then trains as :class:`ResponseOnly` does.

        Raises:
            DataError: The file lacks a column of the task, or no row can be trained on.
            ModelError: The template has no assistant tag or no end token as a target.
            TrainingError: Training diverged.
        """
        found = single_task(self.data, self.task, count=self.count, counting=self.counting)
        self._require(found)
        path = work.folder / "rows.jsonl"
        write_rows(path, found.rows)
        skipped = sum(found.skipped.values())
        work.say(f"{self.task}: {len(found.rows):,} rows of {found.scanned:,}; {skipped} rejected")
        outcome = self._tune(work, lambda row: row, str(path))
        rejected = work.folder / "rejected.jsonl"
        write_rejected(rejected, [*found.rejections, *_rejections(rejected)])
        outcome.metrics["rows_scanned"] = found.scanned
        outcome.metrics["rows_skipped"] = dict(found.skipped)
        return outcome

    def _require(self, found: TaskRows) -> None:
        """Stops where too many rows are unusable; skipped titles are the task's own custom."""
        skipped = sum(found.skipped.values())
        if self.task == "rows" and skipped > self.max_rejected * found.scanned:
            raise DataError(
                f"{skipped} of {found.scanned} rows cannot be used",
                where=self.data,
                fix="repair them, or raise max_rejected",
            )


def _rejections(path: Path) -> list[Rejection]:
    return [Rejection(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
