"""Style adherence: does a model tuned on one task write like that task where it should not?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.data import read, write_rejected
from tilth.errors import DataError
from tilth.evaluate.win_rate import read_outputs
from tilth.method import DataRef, Input, Method, ModelRef, Outcome, Work
from tilth.models import engine, require

__all__ = ["Style", "adherence"]


class Style(Method):
    """Sets how like a task an instruction is against how like that task its answer is written.

    Per instruction x with answer y, all as unit embeddings:

        likeness  = mean cos(x, instructions of the task)
        adherence = mean cos(y, outputs of the task) - mean cos(y, general outputs)

    A model that has kept to itself what it was tuned on writes in the task's style (adherence
    above 0) where the instruction is like the task's, and not elsewhere; the correlation of the two
    says how much. Hewitt et al. 2024 (arXiv:2409.14254) embed with a Nomic model; any model
    that embeds will do here, and values of two embedders cannot be compared.

    Example:
        >>> Style(outputs="outputs", task="poems.jsonl", general="lima.jsonl",  # doctest: +SKIP
        ...       model="seedling:small").to("style")
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "style"
    kind: ClassVar = "files"
    judges: ClassVar = True
    example: ClassVar[dict[str, Any]] = {
        "outputs": "{rows}",
        "task": "{rows}",
        "general": "{seeds}",
        "model": "{model}",
    }

    outputs: Annotated[str, Input("files")] = Field(description="Answers of the tuned model.")
    task: DataRef = Field(description="Rows of the task that it was tuned on.")
    general: DataRef = Field(description="Rows of instruction tuning in general.")
    model: ModelRef = Field(description="Who embeds.")
    limit: int = Field(1000, ge=1, description="Rows of task and general, from the top.")
    batch_size: int = Field(32, ge=1, description="Texts in the model at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes ``style.jsonl``, a row per instruction.

        Raises:
            DataError: A file cannot be read.
            EngineError: The model does not embed.
        """
        answers = {q: a for q, a in read_outputs(self.outputs).answers.items() if a.strip()}
        if not answers:
            raise DataError("no instruction has an answer", where=self.outputs)
        files = [read(ref, say=work.say) for ref in (self.task, self.general)]
        rejections = [row for rows in files for row in rows.rejections()]
        write_rejected(work.folder / "rejected.jsonl", rejections)
        task, general = (list(rows[: self.limit]) for rows in files)
        model = engine(
            self.model, ledger=work.ledger, batch_size=self.batch_size, long_prompts="cut"
        )
        require(model, "embed")
        groups = [
            list(answers),
            list(answers.values()),
            [row.prompt for row in task],
            [row.answer for row in task],
            [row.answer for row in general],
        ]
        likeness, adhering = adherence(*_embedded(model, groups))
        lines = [
            json.dumps({"instruction": q, "likeness": float(x), "adherence": float(y)})
            for q, x, y in zip(answers, likeness, adhering, strict=True)
        ]
        (work.folder / "style.jsonl").write_text("".join(f"{x}\n" for x in lines), "utf-8")
        varied = len(answers) > 2 and likeness.std() > 0 and adhering.std() > 0
        correlation = float(np.corrcoef(likeness, adhering)[0, 1]) if varied else None
        metrics = {
            "answers": len(answers),
            "likeness": float(likeness.mean()),
            "adherence": float(adhering.mean()),
            "correlation": correlation,
        }
        work.say(
            f"adherence {metrics['adherence']:+.3f} at a likeness of {metrics['likeness']:.3f}"
        )
        return Outcome(metrics=metrics, not_measured=["whether the answers are any good"])


def adherence(
    asked: np.ndarray,
    said: np.ndarray,
    task_asked: np.ndarray,
    task_said: np.ndarray,
    general_said: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Likeness and adherence per instruction, from unit embeddings [N, d] and [M, d].

    Returns:
        Two float arrays [N].
    """
    likeness = asked @ task_asked.mean(0)
    return likeness, said @ task_said.mean(0) - said @ general_said.mean(0)


def _embedded(model: Any, groups: Sequence[list[str]]) -> list[np.ndarray]:
    """The embeddings of several lists of texts, from one call."""
    flat = model.embed([text for group in groups for text in group])
    ends = np.cumsum([len(group) for group in groups])
    return np.split(flat, ends[:-1])
