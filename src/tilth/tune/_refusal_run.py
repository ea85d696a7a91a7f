"""One run of refusal-aware tuning: probe, split, texts, training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from tilth.data.questions import Match, Question, is_right, questions_in
from tilth.data.read import Rows, read
from tilth.data.write import Rejection, write_rejected, write_rows
from tilth.errors import DataError
from tilth.method import Outcome, Work
from tilth.models.asking import Asking
from tilth.models.probe import ProbeRow, fingerprint, probe, read_probe, write_probe
from tilth.models.wording import TOLD, Renderer, wording_named
from tilth.tune._certain_texts import Text, encoded, texts_of
from tilth.tune._corpus import Encoded
from tilth.tune._labels import Labels, conflicts, joined, labels_of
from tilth.tune._run import tune
from tilth.tune.sft import SFT

if TYPE_CHECKING:
    from tilth.tune.refusal import Refusal

__all__ = ["tune_refusal"]

_REJECTED = 0.1  # greatest share of questions without a probe row, as of rows that cannot be read
_TIES = 0.5


@dataclass(frozen=True)
class _Probed:
    """The questions that were probed, their rows, and what was set aside."""

    questions: list[Question]
    rows: list[ProbeRow]
    set_aside: list[tuple[Question, str]]


def tune_refusal(settings: Refusal, work: Work) -> Outcome:
    """Does the work of :class:`tilth.tune.refusal.Refusal`."""
    rejected = work.folder / "rejected.jsonl"
    rows = read(settings.data, require="prompt", rejected_to=rejected, say=work.say)
    probed = _probed(settings, questions_in(rows, settings.data), work)
    if not probed.rows:
        raise DataError(
            "no question can be probed",
            where=settings.data,
            fix=probed.set_aside[0][1] if probed.set_aside else "give questions",
        )
    labels = labels_of(
        probed.rows,
        split=settings.split,
        fraction=settings.certain_fraction,
        threshold=settings.entropy_threshold,
        rng=work.stream("validation"),
    )
    if settings.texts != "plain":
        labels.check(settings.data)
    sure = labels.sure
    if settings.shuffle_labels:
        sure = work.stream("shuffled labels").permutation(sure)
    words = wording_named(settings.wording)
    texts = texts_of(
        probed.questions,
        probed.rows,
        sure,
        texts=settings.texts,
        unsure=settings.d0_answer,
        rng=work.stream("refusals"),
    )
    write_probe(
        work.folder / "probe.jsonl",
        probed.rows,
        [{"label": "sure" if known else "unsure"} for known in sure],
    )
    write_rows(work.folder / "texts.jsonl", (text.example(words) for text in texts))
    told = _told(labels, sure, probed)
    _say(told, settings, work)
    outcome = _tuned(settings, texts, work)
    aside = [*probed.set_aside, *_unlearnt(rejected, texts)]
    write_rejected(rejected, [*rows.rejections(), *_rejections(rows, aside)])
    (work.folder / "model" / TOLD).write_text(
        json.dumps(_asked(settings), indent=2, sort_keys=True) + "\n", "utf-8"
    )
    return Outcome(
        metrics={**outcome.metrics, **told},
        funnel=[
            ("rows", rows.records),
            ("questions", len(rows)),
            ("probed", len(texts)),
            ("trained on", outcome.metrics["rows_trained"]),
        ],
        not_measured=["whether it refuses the right questions: evaluate.refusal must say that"],
    )


def _probed(settings: Refusal, questions: list[Question], work: Work) -> _Probed:
    """Probe rows from the given tables, or from asking the model here."""
    asking = Asking(
        wording=settings.wording,
        form=settings.form,
        max_new_tokens=settings.max_new_tokens,
        samples=settings.samples if settings.split == "entropy" else 0,
        temperature=settings.temperature,
        seed=work.plan.root,
    )
    if not settings.probes:
        cache = work.scratch / "probe.jsonl"
        table, long = probe(
            settings.model,
            questions,
            asking,
            match=settings.match,
            cache=cache,
            ledger=work.ledger,
            say=work.say,
        )
        apart = {q.id for q, _ in long}
        return _Probed([q for q in questions if q.id not in apart], table, long)
    tables = [read_probe(ref) for ref in settings.probes]
    model = fingerprint(settings.model, asking)
    rows = joined(questions, tables, model, ", ".join(settings.probes))
    missing = [q for q, row in zip(questions, rows, strict=True) if row is None]
    if len(missing) > _REJECTED * len(questions):
        raise DataError(
            f"{len(missing):,} of {len(questions):,} questions are in no probe table",
            where=f"the first is {missing[0].id}",
            fix="give the tables of all shards of this very data",
        )
    reason = "in no probe table: its shard is not given, or it did not fit the context"
    found = [(q, row) for q, row in zip(questions, rows, strict=True) if row is not None]
    return _Probed(
        [q for q, _ in found],
        [_judged(q, row, settings.match) for q, row in found],
        [(q, reason) for q in missing],
    )


def _judged(question: Question, row: ProbeRow, match: Match) -> ProbeRow:
    """A row of a given table, its answer compared as this run compares it."""
    return replace(row, correct=is_right(row.prediction, question, match), match=match)


def _told(labels: Labels, sure: np.ndarray, probed: _Probed) -> dict[str, Any]:
    """What is measured about the split."""
    near, opposite = conflicts(probed.questions, sure)
    known = [row.correct for row in probed.rows if row.correct is not None]
    return {
        "sure": int(sure.sum()),
        "unsure": int((~sure).sum()),
        "right": sum(known) / len(known) if known else None,
        "entropy_boundary": labels.boundary,
        "tied_share": labels.tied,
        "near_duplicates": near,
        "near_duplicates_opposite": opposite,
        "conflict_rate": opposite / near if near else 0.0,
        "cut_answers": sum(row.finish == "length" for row in probed.rows),
        "questions_set_aside": len(probed.set_aside),
    }


def _say(told: dict[str, Any], settings: Refusal, work: Work) -> None:
    work.say(f"{told['sure']:,} questions sure, {told['unsure']:,} unsure")
    by_share = settings.entropy_threshold is None and settings.certain_fraction != "validated"
    if by_share and told["tied_share"] > _TIES:
        work.say(
            f"warning: {told['tied_share']:.0%} of the questions have the same entropy, so that "
            "the split among them is by the probability of the greedy answer"
        )
    if told["near_duplicates_opposite"]:
        work.say(
            f"{told['near_duplicates_opposite']:,} of {told['near_duplicates']:,} near-duplicate "
            "questions bear the opposite label of their twin"
        )


def _tuned(settings: Refusal, texts: list[Text], work: Work) -> Outcome:
    """Trains on the texts with the machinery of ``tune.sft``."""
    names = ("adapter", "epochs", "max_steps", "batch_size", "learning_rate", "max_length")
    training = SFT.model_validate(
        {
            "model": settings.model,
            "data": str(work.folder / "texts.jsonl"),
            **{name: getattr(settings, name) for name in (*names, "save_every", "trainer")},
        }
    )

    def encode(_: Rows, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
        renderer = Renderer(tokenizer, wording_named(settings.wording), settings.form)
        return encoded(texts, renderer, settings.loss)

    learnt = "whole texts" if settings.loss == "text" else "answers and certainty words"
    return tune(training, work, encode=encode, teller=settings, learnt=learnt)


def _asked(settings: Refusal) -> dict[str, Any]:
    """What ``evaluate.refusal`` must know to ask the tuned model in the same way."""
    return {
        "wording": settings.wording,
        "form": settings.form,
        "texts": settings.texts,
        "max_new_tokens": settings.max_new_tokens,
    }


def _unlearnt(rejected: Path, texts: list[Text]) -> list[tuple[Question, str]]:
    """The questions whose texts training has set aside, too long ones for instance."""
    found = map(json.loads, rejected.read_text("utf-8").splitlines())
    return [(texts[one["line"] - 1].question, one["reason"]) for one in found]


def _rejections(rows: Rows, aside: list[tuple[Question, str]]) -> list[Rejection]:
    return [
        Rejection(rows.path.name, int(q.id.partition("/")[0]) + 1, "", reason, q.text[:300])
        for q, reason in aside
    ]
