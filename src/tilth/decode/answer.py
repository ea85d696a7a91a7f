"""Answers to the prompts of a data file, by any model reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from tilth.data import read, write_rows
from tilth.data.example import Example, Message
from tilth.errors import DataError
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models import Completion, Sampling, engine

__all__ = ["Answer"]


class Answer(Method):
    """Lets a model answer every row's prompt again; combined models too.

    The turns up to the last of the user are asked, and the answer takes the place of what followed.
    The old answer stays in ``meta`` as ``replaced``, so that the two can be compared. With a
    temperature every row has a seed of its own. All defaults are our choice.

    Example:
        >>> Answer(prompts="rows.jsonl", model="seedling:teacher").to("said")  # doctest: +SKIP
    """

    verb: ClassVar = "decode"
    name: ClassVar = "answer"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {
        "prompts": "{rows}",
        "model": "{model}",
        "max_new_tokens": 4,
    }

    prompts: DataRef = Field(description="Rows whose prompts are answered.")
    model: ModelRef = Field(description="Who answers; composed references too.")
    max_new_tokens: int = Field(256, ge=1, description="Most tokens of an answer.")
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Mass of the likeliest tokens to draw from.")
    top_k: int = Field(0, ge=0, description="How many of the likeliest to draw from; 0: all.")
    batch_size: int = Field(32, ge=1, description="Rows in the model at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes the rows in their order; one without an answer is counted and left out.

        Raises:
            DataError: No row got an answer.
        """
        rows = read(self.prompts, rejected_to=work.folder / "rejected.jsonl", say=work.say)
        asked = [_asked(row) for row in rows]
        model = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "answers.jsonl",
            batch_size=self.batch_size,
        )
        sampling = Sampling(self.max_new_tokens, self.temperature, self.top_p, self.top_k)
        seeds = [work.derive("answer", i) for i in range(len(rows))]
        said = model.chat(asked, sampling, seeds)
        failed = [completion for completion in said if completion.finish == "error"]
        if said and len(failed) == len(said):
            raise DataError(f"no row got an answer: {failed[0].error}", where=self.model)
        written = write_rows(work.folder / "rows.jsonl", self._answered(rows, asked, said))
        ended = sum(completion.finish == "stop" for completion in said)
        work.say(f"{written} answers, {ended} of them ended by themselves, {len(failed)} failed")
        return Outcome(
            metrics={
                "rows_in": len(rows),
                "rows_out": written,
                "ended": ended,
                "cut": written - ended,
                "failed": len(failed),
                "mean_tokens": sum(c.new_tokens for c in said) / max(1, len(said)),
            },
            funnel=[("read", len(rows)), ("answered", written)],
        )

    def _answered(
        self, rows: Any, asked: list[list[Message]], said: list[Completion]
    ) -> Iterator[Example]:
        for row, turns, completion in zip(rows, asked, said, strict=True):
            if completion.finish == "error":
                continue
            answer: Message = {"role": "assistant", "content": completion.text}
            more = {"replaced": row.answer, "finish": completion.finish, "parents": [row.id]}
            meta = {**row.meta, "method": "decode.answer", "model": self.model, **more}
            yield Example([*turns, answer], meta)


def _asked(row: Example) -> list[Message]:
    """The turns up to the last of the user."""
    last = max((i for i, m in enumerate(row.messages) if m["role"] == "user"), default=-1)
    return list(row.messages[: last + 1])
