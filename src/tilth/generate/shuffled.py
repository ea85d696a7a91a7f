"""The control for generated data: the same prompts and answers, the link between them cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.data import read, write_rows
from tilth.data.example import Example, Message
from tilth.data.transforms import derangement
from tilth.method import DataRef, Method, Outcome, Work

__all__ = ["Shuffled"]


class Shuffled(Method):
    """Gives every prompt another row's answer; what tuning on it gains is format, not content.

    A seeded permutation of the last answers in which no row keeps its own answer *text*, wherever
    that is possible: of N rows of which m share one answer, exactly ``max(0, 2m - N)`` must keep
    it.

    Example:
        >>> Shuffled(data="rows.jsonl").to("control")  # doctest: +SKIP
    """

    verb: ClassVar = "generate"
    name: ClassVar = "shuffled"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {"data": "{rows}"}

    data: DataRef = Field(description="The rows whose answers are permuted.")

    def run(self, work: Work) -> Outcome:
        """Writes as many rows as it reads, in the same order."""
        rows = read(self.data, rejected_to=work.folder / "rejected.jsonl", say=work.say)
        codes: dict[str, int] = {}
        answers = np.fromiter(
            (codes.setdefault(row.answer, len(codes)) for row in rows), np.int64, len(rows)
        )
        source = derangement(answers, work.stream("answers"))
        write_rows(work.folder / "rows.jsonl", _exchanged(rows, source))
        same = int((answers[source] == answers).sum())
        work.say(f"{len(rows) - same} of {len(rows)} rows got another row's answer")
        return Outcome(
            metrics={"rows_in": len(rows), "rows_out": len(rows), "same_answer": same},
            funnel=[("read", len(rows)), ("got another answer", len(rows) - same)],
        )


def _exchanged(rows: Sequence[Example], source: np.ndarray) -> Iterator[Example]:
    for index, row in enumerate(rows):
        giver = rows[int(source[index])]
        last = max(i for i, m in enumerate(row.messages) if m["role"] == "assistant")
        answer: Message = {"role": "assistant", "content": giver.answer}
        messages = [*row.messages[:last], answer, *row.messages[last + 1 :]]
        meta = {**row.meta, "method": "generate.shuffled", "parents": [row.id, giver.id]}
        yield Example(messages, meta)
