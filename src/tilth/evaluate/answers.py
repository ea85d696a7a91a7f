"""The user's own exam: a held-out file of questions with answers, and a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from tilth.data import read
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.evaluate._asking import Form, Question, ask
from tilth.evaluate._scores import ScoreRow, estimates, write_scores
from tilth.evaluate.metrics import METRICS
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models import Sampling, engine

__all__ = ["Answers"]


class Answers(Method):
    """Scores a model's answers to a held-out file with a metric.

    The file may have any form that tilth reads; what comes before a row's last answer is the
    question, and the last answer is the reference (several accepted answers: a list
    ``meta.answers``, the best counts). The questions are fixed, so greedy answers are the same for
    every test seed and are scored once, under the first; with ``temperature`` each test seed draws
    its own. All defaults are our choice.

    Example:
        >>> Answers(model="seedling:small", data="gsm8k_test.jsonl.xz",      # doctest: +SKIP
        ...         metric="final_number", form="plain", shots="gsm8k_train.jsonl.xz").to("exam")
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "answers"
    kind: ClassVar = "scores"
    judges: ClassVar = True
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "data": "{rows}",
        "metric": "rouge_l",
        "max_new_tokens": 8,
    }

    model: ModelRef = Field(description="The model to examine.")
    data: DataRef = Field(description="The held-out file.")
    metric: Literal["exact", "final_number", "contains", "f1", "rouge_l", "choice"] = Field(
        "exact", description="How an answer is scored against the reference."
    )
    limit: int = Field(0, ge=0, description="Use only so many rows, from the top; 0: all.")
    form: Form = Field("chat", description="chat: turns; plain: question-and-answer text.")
    shots: DataRef | None = Field(
        None, description="File of worked examples; cut at the front where they do not fit."
    )
    shot_count: int = Field(4, ge=1, description="Examples from the top of the shots file.")
    temperature: float = Field(0.0, ge=0, description="0: greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="With a temperature.")
    max_new_tokens: int = Field(256, ge=1, description="Tokens of an answer.")
    batch_size: int = Field(32, ge=1, description="Questions in the model at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes ``scores.jsonl`` and says the mean with its interval.

        Raises:
            DataError: The file has no rows, or a row of ``shots`` is one of its questions.
        """
        rows = read(self.data, rejected_to=work.folder / "rejected.jsonl", say=work.say)
        held_out = [rows[i] for i in range(min(len(rows), self.limit or len(rows)))]
        if not held_out:
            raise DataError("the held-out file has no rows", where=self.data)
        shots = self._shots(held_out)
        questions = [Question(_before_answer(row), shots) for row in held_out]
        model = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "answers.jsonl",
            batch_size=self.batch_size,
            long_prompts="cut" if self.shots else "error",
        )
        sampling = Sampling(self.max_new_tokens, self.temperature, self.top_p)
        seeds = work.test_seeds if self.temperature > 0 else work.test_seeds[:1]
        scored: list[ScoreRow] = []
        for seed in seeds:
            draws = [seed.derive("answer", row.id) for row in held_out]
            said = ask(model, questions, self.form, sampling, draws)
            scored += [
                self._row(int(seed), index, row, completion.text, completion.finish)
                for index, (row, completion) in enumerate(zip(held_out, said, strict=True))
            ]
        write_scores(work.folder / "scores.jsonl", scored)
        metrics = {**estimates(scored), "metric": self.metric, "form": self.form}
        work.say(f"{self.metric} {metrics['score']:.3f} on {len(held_out)} questions")
        return Outcome(
            metrics=metrics,
            funnel=[("rows", len(rows)), ("questions", len(held_out))],
            not_measured=["training randomness: the interval is over the questions of one file"],
        )

    def _shots(self, held_out: Sequence[Example]) -> tuple[tuple[str, str], ...]:
        if self.shots is None:
            return ()
        rows = read(self.shots)
        chosen = [rows[i] for i in range(min(self.shot_count, len(rows)))]
        asked = {row.prompt for row in held_out}
        for index, row in enumerate(chosen):
            if row.prompt in asked:
                raise DataError(
                    "an example shown to the model is one of the held-out questions",
                    where=f"{self.shots}, row {index}",
                    fix="take the shots from another file than the held-out one",
                )
        return tuple((row.prompt, row.answer) for row in chosen)

    def _row(self, seed: int, index: int, row: Example, output: str, finish: str) -> ScoreRow:
        accepted = row.meta.get("answers") or [row.answer]
        score = max(METRICS[self.metric](output, str(answer)) for answer in accepted)
        return {
            "seed": seed,
            "item": f"{index}/{row.id}",
            "skill": str(row.meta.get("skill") or self.metric),
            "level": int(row.meta.get("level") or 1),
            "score": score,
            "prompt": row.prompt,
            "output": output,
            "answer": row.answer,
            "finish": finish,
        }


def _before_answer(row: Example) -> list[Any]:
    last = max(i for i, message in enumerate(row.messages) if message["role"] == "assistant")
    return row.messages[:last]
