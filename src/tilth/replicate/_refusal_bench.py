"""What the replications of R-Tuning share: one arm probed, tuned, examined and scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilth.artefacts import Artefact, Store
from tilth.cost import Ledger
from tilth.data import Example, write_rows
from tilth.evaluate._refusal_metrics import average_precision
from tilth.evaluate.probe import Probe
from tilth.evaluate.refusal import Refusal as Exam
from tilth.replicate.frame import Arm, Measured, shared_folder
from tilth.seeds import Seed, SeedPlan
from tilth.tune.refusal import Refusal

__all__ = ["METRICS", "Bench", "refusal_cell", "scores_of"]

WORDS: dict[str, Any] = {"wording": "short", "max_new_tokens": 8}

METRICS = {
    "right_id, right_ood": "Share of right answers among those given.",
    "accuracy_id, accuracy_ood": "Share of right answers to all questions, refused or not.",
    "coverage_id, coverage_ood": "Share of questions that are answered.",
    "ap_id, ap_ood": "Average precision of the number that the arm ranks its answers by.",
    "ap_sure_id, ap_sure_ood": "Average precision of the certainty word alone.",
    "over_refusal_id, over_refusal_ood": "Share of refusals where its answer was right.",
    "refused_misstated_id, refused_misstated_ood": "Share of refusals of facts told wrongly.",
    "refused_strangers, refused_twins": "Share of refusals of invented names, and of known "
    "ones beside them.",
    "refused": "Share of refusals of facts that were read so often, of both exams.",
    "score": "The same as right_id.",
    "pretrain_w": "Share that the untouched model has right of what this arm answers.",
}
"""What :func:`scores_of` measures, in words."""


@dataclass(frozen=True)
class Bench:
    """What all arms of a seed share.

    Attributes:
        pages: Questions: ``train``, ``validation`` and ``exam``, whose rows have ``meta["exam"]``:
            ``id``, ``ood`` or ``strangers``.
        model: The untouched model.
        tuning: Settings of ``tune.refusal`` that all tuned arms share.
    """

    pages: Mapping[str, list[Example]]
    model: str
    tuning: Mapping[str, Any]


def refusal_cell(
    arm: Arm, seed: Seed, quick: bool, folder: Path, bench_in: Callable[[Path], Bench]
) -> Measured:
    """Probes, tunes and examines one arm, or reads from the exams of another arm.

    Args:
        arm: ``tuning``: settings of ``tune.refusal``, null for the untouched model; ``by``: what
            decides whether it answers, null to answer everything; ``exposure`` or ``answerable``:
            report only the refusals of that part of the arm's exams.
        seed: Draws the questions and names the streams of tuning.
        quick: Few questions and steps.
        folder: The cell's folder; artefacts are shared by all arms of a seed.
        bench_in: Makes what all arms of the seed share, in the folder that they share.
    """
    home = shared_folder(folder) / f"{type(seed).__name__}-{int(seed)}"
    home.mkdir(exist_ok=True)
    files = {name: str(home / f"{name}.jsonl") for name in ("train", "validation", "exam")}
    bench = bench_in(home)
    for name, rows in bench.pages.items():
        if not Path(files[name]).exists():
            write_rows(files[name], rows)
    plan = _plan(seed)
    store = Store(home / "artefacts")
    made: list[Artefact] = []
    model = bench.model
    if arm.settings.get("tuning") is not None:
        probe = Probe(model=bench.model, data=files["train"], samples=5, **WORDS)
        made.append(probe.make(store, "probe", plan))
        settings = {**bench.tuning, **arm.settings["tuning"], **({"max_steps": 4} if quick else {})}
        tuned = Refusal.model_validate(
            {
                "model": bench.model,
                "data": files["train"],
                "probes": [str(made[0].folder)],
                **WORDS,
                **settings,
            }
        )
        made.append(tuned.make(store, "tuned", plan))
        model = str(made[1].folder)
    by = arm.settings.get("by")
    exam = Exam.model_validate(
        {
            "model": model,
            "data": files["exam"],
            "refuse_by": by or "p_predict",
            "base": bench.model if by == "p_sure" else None,
            "validation": None if by in (None, "words") else files["validation"],
            "threshold": 0.0 if by is None else None,
            "resamples": 100,
            **WORDS,
        }
    ).make(store, "exam", plan)
    lines = exam.path("refusal.jsonl").read_text("utf-8").splitlines()
    tables: dict[str, list[dict[str, Any]]] = {"id": [], "ood": [], "strangers": []}
    for row in map(json.loads, lines):
        tables[row["meta"]["exam"]].append(row)
    spent = Ledger()
    for artefact in [*made, exam]:
        spent.merge(Ledger.from_dict(artefact.manifest.cost))
    scores = scores_of(tables, arm.settings)
    if "score" in scores and by == "p_sure":
        scores["pretrain_w"] = exam.manifest.metrics["pretrain_w"]["value"]
    return Measured(scores, spent)


def _plan(seed: Seed) -> SeedPlan:
    """A plan whose root and only judging seed is `seed`; the exam itself is what it draws."""
    number = int(seed)
    return SeedPlan.of(number, tuning=[], testing=[number])


def scores_of(
    tables: Mapping[str, list[dict[str, Any]]], settings: Mapping[str, Any]
) -> dict[str, float | list[float]]:
    """The scores of an arm; of a part of its exams only the refusals."""
    if "exposure" in settings:
        both = [*tables["id"], *tables["ood"]]
        part = [r for r in both if r["meta"]["exposure"] == settings["exposure"]]
        return {"refused": _mean(part, "refused")}
    if "answerable" in settings:
        rows = [r for r in tables["strangers"] if r["answerable"] == settings["answerable"]]
        rows.sort(key=lambda row: str(row["pair"]))
        return {"refused_strangers": [float(row["refused"]) for row in rows]}
    scores: dict[str, float | list[float]] = {}
    for exam in ("id", "ood"):
        rows = tables[exam]
        given = [row for row in rows if not row["refused"]]
        right = [row["correct"] for row in rows]
        ranked = "confidence" if settings.get("by") == "p_sure" else "trust"
        known = [row for row in rows if row["correct"]]
        scores |= {
            f"right_{exam}": _mean(given, "correct"),
            f"accuracy_{exam}": _mean(rows, "correct"),
            f"coverage_{exam}": len(given) / len(rows),
            f"ap_{exam}": average_precision([row[ranked] for row in rows], right),
            f"ap_sure_{exam}": average_precision([row["p_sure"] for row in rows], right),
            f"over_refusal_{exam}": _mean(known, "refused"),
        }
        told = [row for row in rows if row["meta"]["misstated"]]
        scores[f"refused_misstated_{exam}"] = _mean(told, "refused")
    for answerable in (False, True):
        part = [row for row in tables["strangers"] if row["answerable"] == answerable]
        scores["refused_twins" if answerable else "refused_strangers"] = _mean(part, "refused")
    scores["score"] = scores["right_id"]
    return scores


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    """The share of rows where `name` is true; 0 where there are none."""
    return float(np.mean([row[name] for row in rows])) if rows else 0.0
