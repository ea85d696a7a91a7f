"""What an untouched model knows: its answer to every question, right or wrong, and its entropy."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from tilth.data import Rejection, read, write_rejected
from tilth.data.questions import Match, questions_in
from tilth.errors import DataError
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models.wording import Form

__all__ = ["Probe"]


class Probe(Method):
    """Asks a model every question and records what it knows, for refusal-aware tuning.

    The probe table of R-Tuning (Zhang et al. 2024, arXiv:2311.09677): per question the greedy
    answer, whether it is right, and with ``samples`` the entropy ``H = -sum p_i ln p_i`` over the
    exact strings of as many sampled answers. A question with ``choices`` gets one forward pass: the
    likeliest letter, and the exact entropy over the letters instead of samples.

    Greedy means the likeliest token, whatever the model's generation settings say. A question that
    does not fit the context is listed in ``rejected.jsonl`` with its length, and never cut. Large
    files are split over machines with ``shard`` and ``shards``; ``tune.refusal`` takes the tables
    of all shards. After a kill the same call asks for the rest.

    Defaults: 15 new tokens and temperature 0.7 are those of the official code, which samples 5
    times where it measures the entropy (the paper's own number is unverified); the rest is our
    choice.

    Example:
        >>> Probe(model="seedling:large", data="questions.jsonl", samples=5,   # doctest: +SKIP
        ...       shard=0, shards=4).to("probe-0")
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "probe"
    kind: ClassVar = "files"
    version: ClassVar = "2"
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "data": "{rows}",
        "samples": 2,
        "max_new_tokens": 4,
        "batch_size": 4,
    }

    model: ModelRef = Field(description="The untouched model.")
    data: DataRef = Field(description="Questions, with right answers where they are known.")
    shard: int = Field(0, ge=0, description="Which part of the data: 0 to shards - 1.")
    shards: int = Field(1, ge=1, description="In how many parts the data is asked.")
    samples: int = Field(0, ge=0, description="Sampled answers per open question; 0: no entropy.")
    temperature: float = Field(0.7, gt=0, description="Of the sampled answers.")
    max_new_tokens: int = Field(15, ge=1, description="Tokens of an answer.")
    match: Match = Field("words", description="words, exact, or official: a substring, case kept.")
    wording: str = Field("lines", description="Fixed words: lines, sentence or short.")
    form: Form = Field("plain", description="plain text, or chat turns.")
    batch_size: int = Field(64, ge=1, description="Questions in the model at once.")

    @model_validator(mode="after")
    def _shard_exists(self) -> Probe:
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} of {self.shards} does not exist; count from 0")
        return self

    def run(self, work: Work) -> Outcome:
        """Writes ``probe.jsonl`` and ``rejected.jsonl``.

        Raises:
            DataError: There are no questions, or none fits the context.
        """
        from tilth.models.asking import Asking
        from tilth.models.probe import in_shard, probe, write_probe

        rows = read(
            self.data,
            require="prompt",
            rejected_to=work.folder / "rejected.jsonl",
            say=work.say,
        )
        questions = in_shard(questions_in(rows, self.data), self.shard, self.shards)
        asking = Asking(
            wording=self.wording,
            form=self.form,
            max_new_tokens=self.max_new_tokens,
            samples=self.samples,
            temperature=self.temperature,
            seed=work.plan.root,  # the same for every shard
        )
        table, long = probe(
            self.model,
            questions,
            asking,
            match=self.match,
            cache=work.scratch / "probe.jsonl",
            batch_size=self.batch_size,
            ledger=work.ledger,
            say=work.say,
        )
        told = [
            Rejection(rows.path.name, int(q.id.partition("/")[0]) + 1, "", reason, q.text[:300])
            for q, reason in long
        ]
        write_rejected(work.folder / "rejected.jsonl", [*rows.rejections(), *told])
        if not table:
            raise DataError(
                "no question of this shard can be asked",
                where=self.data,
                fix=told[0].reason if told else "use fewer shards",
            )
        write_probe(work.folder / "probe.jsonl", table)
        known = [row.correct for row in table if row.correct is not None]
        entropies = [row.entropy for row in table if row.entropy is not None]
        return Outcome(
            metrics={
                "questions": len(table),
                "with_answer": len(known),
                "right": sum(known),
                "accuracy": sum(known) / len(known) if known else None,
                "mean_entropy": sum(entropies) / len(entropies) if entropies else None,
                "empty_answers": sum(not row.prediction for row in table),
                "cut_answers": sum(row.finish == "length" for row in table),
                "model": table[0].model,
            },
            funnel=[("rows", len(rows)), ("in the shard", len(questions)), ("asked", len(table))],
        )
