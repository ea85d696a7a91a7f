"""One evaluation of a refusing model: asking, the threshold, the table, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.data import Rejection, read, write_rejected
from tilth.data.questions import Question, is_right, questions_in
from tilth.data.refusals import is_refusal
from tilth.errors import DataError
from tilth.evaluate._refusal_metrics import (
    Floats,
    area_under_risk,
    average_precision,
    calibration_error,
    choose_threshold,
    estimate,
    risk_coverage,
)
from tilth.evaluate._scores import ScoreRow, write_scores
from tilth.method import Outcome, Work
from tilth.models.asking import Asking, answers_to, fitting
from tilth.models.certainty import Answered
from tilth.models.wording import tuned_with

if TYPE_CHECKING:
    from tilth.evaluate.refusal import Refusal

__all__ = ["evaluate"]

_IN_WORDS = ("p_sure", "confidence")  # what the certainty word has a part in


@dataclass(frozen=True)
class _Asked:
    """Questions with what the model made of them."""

    questions: list[Question]
    answers: list[Answered]
    right: np.ndarray  # of an unanswerable question False
    trust: Floats
    words: np.ndarray  # the answer is a refusal in words


def evaluate(settings: Refusal, work: Work) -> Outcome:
    """Does the work of :class:`tilth.evaluate.refusal.Refusal`."""
    asking = _asking(settings, work)
    rejected: list[Rejection] = []
    asked = _ask(settings, settings.data, asking, work, rejected)
    threshold = _threshold(settings, asked, asking, work, rejected)
    write_rejected(work.folder / "rejected.jsonl", rejected)
    refused = asked.words if threshold is None else asked.words | (asked.trust < threshold)
    _write_table(work.folder / "refusal.jsonl", settings, asked, refused)
    write_scores(work.folder / "scores.jsonl", _scores(asked, refused, work))
    answerable = np.array([q.answerable for q in asked.questions])
    metrics = _metrics(settings, asked, refused, answerable)
    _write_curve(work.folder / "curve.jsonl", asked, answerable)
    if settings.base is not None:
        metrics |= _untouched(settings, asking, asked, refused & answerable, work)
    metrics |= {
        "threshold": _turned(settings, threshold),
        "refuse_by": settings.refuse_by,
        **_about(asking),
    }
    work.say(_line(metrics))
    return Outcome(
        metrics=metrics,
        funnel=[("questions", len(asked.questions) + len(rejected)), ("asked", len(refused))],
        not_measured=["training randomness: the intervals are over the questions of one model"],
    )


# ---- asking ----


def _asking(settings: Refusal, work: Work) -> Asking:
    """How the model is asked: as it was tuned, where the settings say nothing else."""
    told = tuned_with(settings.model)
    texts = told.get("texts")
    if settings.refuse_by in _IN_WORDS and texts in ("plain", "replace"):
        work.say(
            f"warning: this model was tuned with texts: {texts}, where it says nothing of certainty"
        )
    tails = ("sure", "true") if settings.refuse_by == "p_true" else ("sure",)
    return Asking(
        wording=settings.wording or told.get("wording", "lines"),
        form=settings.form or told.get("form", "plain"),
        max_new_tokens=settings.max_new_tokens or told.get("max_new_tokens", 15),
        tails=tails,
        single_token=settings.certainty_tokens == "first",
        refusals=settings.refuse_by == "p_refusal",
        samples=settings.samples if settings.refuse_by == "entropy" else 0,
        temperature=settings.temperature,
        seed=work.test_seeds[0].derive("samples"),
    )


def _ask(
    settings: Refusal, data: str, asking: Asking, work: Work, rejected: list[Rejection]
) -> _Asked:
    """Reads and asks one file; what cannot be judged is added to `rejected`."""
    listed = work.folder / "rejected.jsonl"
    rows = read(data, require="prompt", rejected_to=listed, say=work.say)
    rejected.extend(rows.rejections())
    asker = asking.asker(settings.model, work.ledger)
    fit, aside = fitting(asker, questions_in(rows, data))
    unknown = "no right answer is known, and the question is not marked as unanswerable"
    aside += [(q, unknown) for q in fit if q.answerable and not q.golds]
    fit = [q for q in fit if q.golds or not q.answerable]
    rejected.extend(
        Rejection(rows.path.name, int(q.id.partition("/")[0]) + 1, "", reason, q.text[:300])
        for q, reason in aside
    )
    if aside:
        work.say(f"{len(aside):,} of {len(rows):,} questions are set aside: {aside[0][1]}")
    if not any(q.answerable for q in fit):
        raise DataError(
            "there is no answerable question with a right answer",
            where=data,
            fix=aside[0][1] if aside else "over-refusal cannot be seen without any",
        )
    answers = answers_to(
        asker,
        fit,
        ref=settings.model,
        asking=asking,
        cache=work.scratch / "answers.jsonl",
        batch_size=settings.batch_size,
    )
    right = [
        q.answerable and bool(is_right(a.text, q, settings.match))
        for q, a in zip(fit, answers, strict=True)
    ]
    words = np.array(
        [is_refusal(a.text) and not q.choices for q, a in zip(fit, answers, strict=True)]
    )
    trust = np.array([_trust(settings, a, w) for a, w in zip(answers, words, strict=True)])
    return _Asked(fit, answers, np.array(right), trust, words)


def _confidence(settings: Refusal, answered: Answered) -> float:
    weight = settings.weight
    return weight * answered.p_predict + (1 - weight) * answered.shares["sure"]


def _trust(settings: Refusal, answered: Answered, refused_in_words: bool) -> float:
    """The number by which the model decides; higher where it should rather answer."""
    if settings.refuse_by == "words":
        return 0.0 if refused_in_words else answered.p_predict
    if settings.refuse_by == "entropy":
        return -(answered.entropy or 0.0)
    if settings.refuse_by == "confidence":
        return _confidence(settings, answered)
    if settings.refuse_by == "p_predict":
        return answered.p_predict
    if settings.refuse_by == "p_refusal":
        return 1 - answered.shares["refusal"]
    return answered.shares["sure" if settings.refuse_by == "p_sure" else "true"]


def _turned(settings: Refusal, threshold: float | None) -> float | None:
    """A threshold of trust as the user's, and back: less entropy is more trust."""
    if threshold is None or settings.refuse_by != "entropy":
        return threshold
    return -threshold


def _threshold(
    settings: Refusal, asked: _Asked, asking: Asking, work: Work, rejected: list[Rejection]
) -> float | None:
    """The least trust that answers: as given, or as the validation questions ask for."""
    if settings.validation is None:
        return _turned(settings, settings.threshold)
    held_out = _ask(settings, settings.validation, asking, work, rejected)
    tested = {q.asked for q in asked.questions}
    for question in held_out.questions:
        if question.asked in tested:
            raise DataError(
                "a validation question is also a test question",
                where=f"{settings.validation}: question {question.id}",
                fix="choose the threshold on questions that the test does not hold",
            )
    trust, right = held_out.trust, held_out.right
    if settings.rule == "coverage":  # which is measured on answerable questions
        answerable = np.array([q.answerable for q in held_out.questions])
        trust, right = trust[answerable], right[answerable]
    return choose_threshold(trust, right, settings.rule, settings.target)


# ---- what is measured ----


def _metrics(
    settings: Refusal, asked: _Asked, refused: np.ndarray, answerable: np.ndarray
) -> dict[str, Any]:
    """Every number with its interval over questions."""
    columns = {
        "refused": refused,
        "right": asked.right,
        "trust": asked.trust,
        "p_predict": [a.p_predict for a in asked.answers],
        "p_sure": [a.shares["sure"] for a in asked.answers],
        "confidence": [_confidence(settings, a) for a in asked.answers],
    }
    known = {name: np.asarray(values, float)[answerable] for name, values in columns.items()}

    def of(statistic: Any, of_columns: dict[str, Any] = known) -> dict[str, Any]:
        return estimate(of_columns, statistic, settings.resamples).as_dict()

    metrics: dict[str, Any] = {
        "questions": int(answerable.sum()),
        "coverage": of(lambda c: 1 - c["refused"].mean()),
        "refusal_rate": of(lambda c: c["refused"].mean()),
        "accuracy": of(lambda c: c["right"].mean()),
        "willing_accuracy": of(_willing),
        "refused_though_right": of(lambda c: _share(c["refused"], c["right"])),
        "ap": of(lambda c: average_precision(c["trust"], c["right"])),
        "aurc": of(lambda c: area_under_risk(c["trust"], c["right"])),
    }
    for name in ("p_predict", "p_sure", "confidence"):
        metrics[f"ap_{name}"] = of(lambda c, n=name: average_precision(c[n], c["right"]))
        metrics[f"ece_{name}"] = of(lambda c, n=name: calibration_error(c[n], c["right"]))
    metrics["empty_answers"] = sum(not a.text for a in asked.answers)
    metrics["cut_answers"] = sum(a.finish == "length" for a in asked.answers)
    tasks = sorted({q.task for q in asked.questions if q.answerable})
    if len(tasks) > 1:
        task_N = np.array([q.task for q in asked.questions if q.answerable])
        metrics["by_task"] = {task or "none": _of_task(known, task_N == task, of) for task in tasks}
    if answerable.all():
        return metrics
    pairs = {q.pair for q in asked.questions if q.pair and not q.answerable}
    twins = np.array([q.answerable and q.pair in pairs for q in asked.questions])
    apart = twins if twins.any() else answerable
    return {
        **metrics,
        "unanswerable": int((~answerable).sum()),
        "unanswerable_refused": of(lambda c: c["r"].mean(), {"r": refused[~answerable]}),
        "over_refusal": of(lambda c: c["r"].mean(), {"r": refused[apart]}),
        "over_refusal_on": "answerable twins" if twins.any() else "all answerable questions",
    }


def _of_task(known: dict[str, Floats], its: np.ndarray, of: Any) -> dict[str, Any]:
    """The main numbers on the questions of one task."""
    part = {name: values[its] for name, values in known.items()}
    return {
        "questions": int(its.sum()),
        "coverage": of(lambda c: 1 - c["refused"].mean(), part),
        "accuracy": of(lambda c: c["right"].mean(), part),
        "willing_accuracy": of(_willing, part),
        "ap": of(lambda c: average_precision(c["trust"], c["right"]), part),
    }


def _share(of: Floats, among: Floats) -> float:
    """The mean of `of` where `among`; 0 where that is nowhere."""
    return float((of * among).sum() / among.sum()) if among.any() else 0.0


def _willing(columns: dict[str, Floats]) -> float:
    """Right answers among those given; 0 where none was given."""
    return _share(columns["right"], 1 - columns["refused"])


def _untouched(
    settings: Refusal, asking: Asking, asked: _Asked, refused: np.ndarray, work: Work
) -> dict[str, Any]:
    """The untouched model's accuracy on all questions, and on those that were answered."""
    assert settings.base is not None
    chosen = [(q, bool(r)) for q, r in zip(asked.questions, refused, strict=True) if q.answerable]
    questions = [q for q, _ in chosen]
    asker = asking.asker(settings.base, work.ledger)
    if long := fitting(asker, questions)[1]:
        raise DataError(
            f"{len(long):,} questions fit the model's context, but not that of base",
            where=f"question {long[0][0].id}: {long[0][1]}",
            fix="base must be the model that was tuned; or leave it out",
        )
    answers = answers_to(
        asker,
        questions,
        ref=settings.base,
        asking=asking,
        cache=work.scratch / "base.jsonl",
        batch_size=settings.batch_size,
    )
    right = [
        bool(is_right(a.text, q, settings.match)) for q, a in zip(questions, answers, strict=True)
    ]
    columns = {"right": right, "refused": [r for _, r in chosen]}
    found = {
        "pretrain_t": estimate(columns, lambda c: float(c["right"].mean()), settings.resamples),
        "pretrain_w": estimate(columns, _willing, settings.resamples),
    }
    return {name: e.as_dict() for name, e in found.items()}


def _about(asking: Asking) -> dict[str, Any]:
    return {"wording": asking.wording, "form": asking.form}


def _line(metrics: dict[str, Any]) -> str:
    told = (
        f"answers {metrics['coverage']['value']:.0%} of {metrics['questions']:,} questions, "
        f"{metrics['willing_accuracy']['value']:.0%} of them right "
        f"(all: {metrics['accuracy']['value']:.0%}); AP {metrics['ap']['value']:.3f}"
    )
    if "over_refusal" in metrics:
        told += (
            f"; refuses {metrics['unanswerable_refused']['value']:.0%} of the unanswerable, "
            f"{metrics['over_refusal']['value']:.0%} of {metrics['over_refusal_on']}"
        )
    return told


# ---- files ----


def _write_table(path: Path, settings: Refusal, asked: _Asked, refused: np.ndarray) -> None:
    with path.open("w", encoding="utf-8") as file:
        for i, (q, a) in enumerate(zip(asked.questions, asked.answers, strict=True)):
            row = {
                "id": q.id,
                "question": q.asked,
                "task": q.task,
                "answerable": q.answerable,
                "pair": q.pair,
                "prediction": a.text,
                "correct": bool(asked.right[i]),
                "p_predict": a.p_predict,
                "p_sure": a.shares["sure"],
                "confidence": _confidence(settings, a),
                "trust": float(asked.trust[i]),
                "entropy": a.entropy,
                "refused": bool(refused[i]),
                "empty": not a.text,
                "finish": a.finish,
                "meta": q.meta,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_curve(path: Path, asked: _Asked, answerable: np.ndarray) -> None:
    curve = risk_coverage(asked.trust[answerable], asked.right[answerable])
    with path.open("w", encoding="utf-8") as file:
        for threshold, coverage, risk in zip(*(c.tolist() for c in curve), strict=True):
            row = {"threshold": threshold, "coverage": coverage, "risk": risk}
            file.write(json.dumps(row) + "\n")


def _score(question: Question, right: bool, refused: bool) -> float:
    """1 right, 1/2 refused, 0 wrong; of what nobody can answer 1 refused, 0 answered."""
    if not question.answerable:
        return float(refused)
    return 0.5 if refused else float(right)


def _scores(asked: _Asked, refused: np.ndarray, work: Work) -> Sequence[ScoreRow]:
    seed = int(work.test_seeds[0])
    return [
        {
            "seed": seed,
            "item": q.id,
            "skill": (q.task or "answerable") if q.answerable else "unanswerable",
            "level": int(q.meta.get("level") or 1),
            "score": _score(q, bool(asked.right[i]), bool(refused[i])),
            "prompt": q.asked,
            "output": f"[refused] {a.text}" if refused[i] else a.text,
            "answer": q.golds[0] if q.golds else "",
            "finish": a.finish,
        }
        for i, (q, a) in enumerate(zip(asked.questions, asked.answers, strict=True))
    ]
