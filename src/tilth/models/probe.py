"""The probe table: what an untouched model answers to every question, before anything is tuned.

One row per question, measured and not yet judged: which rows count as known is decided later, over
all shards together. A row carries a fingerprint of the model and of the way it was asked, so that
a table cannot be used for another model by mistake.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from tilth.cost import Ledger
from tilth.data.questions import Match, Question, is_right
from tilth.errors import DataError
from tilth.method import Input
from tilth.models.asking import Asking, answers_to, fitting
from tilth.models.certainty import Answered
from tilth.models.reference import digest

__all__ = ["ProbeRef", "ProbeRow", "fingerprint", "in_shard", "probe", "read_probe", "write_probe"]


ProbeRef = Annotated[str, Input("files")]
"""A probe table: the folder of an ``evaluate.probe`` artefact, or its ``probe.jsonl``."""


@dataclass(frozen=True)
class ProbeRow:
    """What is known about one question.

    Attributes:
        id: The question's id.
        prediction: The greedy answer; empty where the model ended at once.
        correct: Whether it is right; None where no right answer is known.
        entropy: Entropy in nats of the sampled answers, or of the letters of a choice; or None.
        p_predict: Geometric mean of the greedy answer's probabilities.
        logprob: Mean log-probability of its tokens; it breaks ties of the entropy.
        finish: ``stop``, or ``length`` where the answer was cut.
        samples: The sampled answers.
        n_samples: How many there are.
        match: How the answer was compared.
        temperature: Of the samples.
        seed: The seed of the samples.
        model: Fingerprint of the model and of the way it was asked.
    """

    id: str
    prediction: str
    correct: bool | None
    entropy: float | None
    p_predict: float
    logprob: float
    finish: str
    samples: tuple[str, ...]
    n_samples: int
    match: str
    temperature: float
    seed: int
    model: str

    @classmethod
    def of(
        cls, question: Question, answered: Answered, match: Match, asking: Asking, model: str
    ) -> ProbeRow:
        """The row of an answered question."""
        return cls(
            id=question.id,
            prediction=answered.text,
            correct=is_right(answered.text, question, match),
            entropy=answered.entropy,
            p_predict=answered.p_predict,
            logprob=answered.logprob / max(1, answered.tokens),
            finish=answered.finish,
            samples=answered.samples,
            n_samples=len(answered.samples),
            match=match,
            temperature=asking.temperature,
            seed=asking.seed,
            model=model,
        )


def fingerprint(ref: str, asking: Asking) -> str:
    """A hash of the model's content and of how it is asked for its greedy answer."""
    how = [asking.wording, asking.form, asking.max_new_tokens]
    text = json.dumps([digest(ref), how])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def in_shard(questions: Sequence[Question], shard: int, shards: int) -> list[Question]:
    """Every `shards`-th question, from number `shard` on."""
    return list(questions)[shard::shards]


def probe(
    ref: str,
    questions: Sequence[Question],
    asking: Asking,
    *,
    match: Match = "words",
    cache: Path,
    batch_size: int = 64,
    ledger: Ledger | None = None,
    say: Callable[[str], None] = print,
) -> tuple[list[ProbeRow], list[tuple[Question, str]]]:
    """The probe rows of `questions`, and the questions that do not fit the model's context.

    Args:
        ref: The untouched model.
        questions: What is asked.
        asking: How.
        match: How an answer is compared with the right ones.
        cache: The file of finished batches; kept where a kill does not reach it.
        batch_size: Questions in the model at once.
        ledger: Books tokens and FLOPs.
        say: Prints one line for the user.
    """
    asker = asking.asker(ref, ledger)
    fit, long = fitting(asker, questions)
    if long:
        say(f"{len(long):,} of {len(questions):,} questions are too long: {long[0][1]}")
    answers = answers_to(asker, fit, ref=ref, asking=asking, cache=cache, batch_size=batch_size)
    model = fingerprint(ref, asking)
    rows = [ProbeRow.of(q, a, match, asking, model) for q, a in zip(fit, answers, strict=True)]
    return rows, long


def write_probe(path: Path, rows: Sequence[ProbeRow], more: Sequence[dict[str, Any]] = ()) -> None:
    """Writes one JSON object per line.

    Args:
        path: The file.
        rows: The rows.
        more: Further fields of each row, e.g. its label; empty: none.
    """
    with path.open("w", encoding="utf-8") as file:
        for n, row in enumerate(rows):
            body = {**asdict(row), **(more[n] if more else {})}
            file.write(json.dumps(body, ensure_ascii=False) + "\n")


def read_probe(ref: str) -> list[ProbeRow]:
    """The rows of a probe table: an artefact's folder or its ``probe.jsonl``.

    Raises:
        DataError: There is none, or a line is no row of one.
    """
    path = Path(ref) / "probe.jsonl" if Path(ref).is_dir() else Path(ref)
    if not path.is_file():
        raise DataError(
            "there is no probe table", where=str(path), fix="name the folder of evaluate.probe"
        )
    rows = []
    known = ProbeRow.__dataclass_fields__
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            body = {k: v for k, v in json.loads(line).items() if k in known}
            rows.append(ProbeRow(**{**body, "samples": tuple(body["samples"])}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"this line is no row of a probe table: {error!r}",
                where=f"{path}:{number}",
                fix="tables are written by evaluate.probe and tune.refusal",
            ) from error
    return rows
