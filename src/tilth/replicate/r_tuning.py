"""R-Tuning in the almanac: does a model learn to say which of its answers it knows?

The world grades knowledge: each fact stands 0, 1, 4, 16, 64 or 256 times in what ``seedling:large``
read, and one exposed fact in twelve is told wrongly, so that the model is confident of it and
wrong. Training questions are about varieties and pests of the split ``train``; thresholds are
chosen on ``validation``; the exams ask about entities that no text of tuning names: ``id`` about
the same relations, ``ood`` about places, a kind of thing and relations that tuning never sees.
Strangers are invented names beside known twins.

Every arm is probed once (the same table), tuned with the same steps and optimiser, and asked in the
same words. Each test seed draws its own questions, wordings, order of training and refusals. An arm
is judged by the share of right answers among those it gives (``right_*``; vanilla gives all), by
average precision of the number it would rank by (``ap_*``: p_predict for vanilla, the mixture of
both as in the paper for R-Tuning) and of the certainty word alone (``ap_sure_*``).

Chosen on tuning seed 1, before any test seed was looked at, from about ten single runs. With the
gold answers kept, the certainty word was at chance, since what betrays an unknown fact in training
(a surprising answer) is missing when the model reads its own; so unsure texts hold its own answer.
LoRA hardly moves the two certainty words, which pre-training never used; so all weights are tuned.
More epochs fit the labels of training questions by heart (six epochs at 3e-4: training loss 0.14,
certainty at chance); so there is one, as in the paper. Even so the word ranks little better than
chance: a linear probe on the untouched model's last hidden state at the answer tells right from
wrong with an average precision of 0.56 (one with a hidden layer, at any depth: 0.65) where the
probability of its answer has 0.78 (base rate 0.44), and a word that comes later can read no more
than the states hold. Greedy decoding of R-Tuning-R refused one question in seven at most, because
sixteen sentences share what one answer has alone; the probability of all of them together, with a
threshold from validation, is the arm ``r-tuning-r``.

How to read the result: a small gain of R-Tuning over vanilla that the shuffled labels have too is a
gain of other texts, not of knowledge; the claims against shuffled labels tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tilth.almanac.skills import Split
from tilth.almanac.strangers import fact_questions, stranger_questions
from tilth.artefacts import Artefact, Store
from tilth.cost import Ledger
from tilth.data import Example, write_rows
from tilth.evaluate._refusal_metrics import average_precision
from tilth.evaluate.probe import Probe
from tilth.evaluate.refusal import Refusal as Exam
from tilth.replicate.claims import Claim, Greater, Monotone
from tilth.replicate.figures import Curve, Frontier
from tilth.replicate.frame import Arm, Measured, Replication, shared_folder
from tilth.seeds import Seed, SeedPlan, TestSeed
from tilth.tune.refusal import Refusal

__all__ = ["R_TUNING", "cell", "pages"]

KNOWN = ("crop", "colour", "month", "soil", "home", "enemy", "remedy", "host")
"""Relations of varieties and pests: those of tuning and of the ``id`` exam."""

UNSEEN = ("founder", "trade", "river", "market")
"""Relations of places: those of the ``ood`` exam."""

EXPOSURES = (0, 1, 4, 16, 64, 256)
MODEL = "seedling:large"
WORDS: dict[str, Any] = {"wording": "short", "max_new_tokens": 8}
TUNING: dict[str, Any] = {
    "adapter": "full",
    "loss": "completion",
    "batch_size": 8,
    "learning_rate": 2e-4,
    "d0_answer": "model_prediction",
}
"""Settings that all tuned arms share."""


def pages(seed: Seed, quick: bool) -> dict[str, list[Example]]:
    """The questions of a seed: for training, for validation, and the exam in its three parts."""
    number = int(seed)
    split: Split = "testing" if isinstance(seed, TestSeed) else "tuning"
    parts = {
        "id": fact_questions(KNOWN, split, number, 24 if quick else 300),
        "ood": fact_questions(UNSEEN, split, number, 24 if quick else None),
        "strangers": stranger_questions(KNOWN, split, number, 6 if quick else 60),
    }
    for name, rows in parts.items():
        for row in rows:
            row.meta["exam"] = name
    return {
        "train": fact_questions(KNOWN, "train", number, 48 if quick else None),
        "validation": fact_questions(KNOWN, "validation", number, 24 if quick else None),
        "exam": [row for rows in parts.values() for row in rows],
    }


def cell(arm: Arm, seed: Seed, quick: bool, folder: Path) -> Measured:
    """Probes, tunes and examines one arm, or reads from the exams of another arm.

    Args:
        arm: ``tuning``: settings of ``tune.refusal``, null for the untouched model; ``by``: what
            decides whether it answers, null to answer everything; ``exposure`` or ``exam``: report
            only the refusals of that part of the arm's exams.
        seed: Draws the questions and names the streams of tuning.
        quick: Few questions and steps.
        folder: The cell's folder; artefacts are shared by all arms of a seed.
    """
    home = shared_folder(folder) / f"{type(seed).__name__}-{int(seed)}"
    home.mkdir(exist_ok=True)
    files = {name: str(home / f"{name}.jsonl") for name in ("train", "validation", "exam")}
    for name, rows in pages(seed, quick).items():
        if not Path(files[name]).exists():
            write_rows(files[name], rows)
    plan = _plan(seed)
    store = Store(home / "artefacts")
    made: list[Artefact] = []
    model = MODEL
    if arm.settings.get("tuning") is not None:
        probe = Probe(model=MODEL, data=files["train"], samples=5, **WORDS)
        made.append(probe.make(store, "probe", plan))
        settings = {**TUNING, **arm.settings["tuning"], **({"max_steps": 4} if quick else {})}
        tuned = Refusal.model_validate(
            {
                "model": MODEL,
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
            "base": MODEL if by == "p_sure" else None,
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
    scores = _scores(tables, arm.settings)
    if "score" in scores and by == "p_sure":
        scores["pretrain_w"] = exam.manifest.metrics["pretrain_w"]["value"]
    return Measured(scores, spent)


def _plan(seed: Seed) -> SeedPlan:
    """A plan whose root and only judging seed is `seed`; the exam itself is what it draws."""
    number = int(seed)
    return SeedPlan.of(number, tuning=[], testing=[number])


def _scores(
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


def _tuned(**more: Any) -> dict[str, Any]:
    """The settings of an arm that is tuned as all are, but for `more`."""
    return {"tuning": more, "by": "p_sure"}


R = _tuned()
WORDED = {"tuning": {"texts": "replace"}, "by": "p_refusal"}
VANILLA = {"tuning": {"texts": "plain"}}
BY_PROBABILITY = {**VANILLA, "by": "p_predict"}

LOOKED_INTO: tuple[tuple[str, Literal["method", "baseline"], dict[str, Any]], ...] = (
    ("r-tuning", "method", R),
    ("r-tuning-r", "method", WORDED),
    ("vanilla-threshold", "baseline", BY_PROBABILITY),
)
"""The arms whose refusals are shown by exposure, and of strangers beside twins."""

ARMS = (
    Arm("r-tuning", "Right or wrong before tuning; refuses by its certainty word.", settings=R),
    Arm(
        "r-tuning-u",
        "The same, split by the entropy of five sampled answers.",
        settings=_tuned(split="entropy"),
    ),
    Arm(
        "r-tuning-r",
        "Refusals instead of unsure answers; refuses by the probability of all refusals.",
        settings=WORDED,
    ),
    Arm(
        "r-tuning-r-greedy",
        "The same, refusing where the greedy answer is a refusal.",
        settings={**WORDED, "by": "words"},
    ),
    Arm("vanilla", "Tuned on all right answers; answers everything.", "baseline", VANILLA),
    Arm(
        "vanilla-threshold",
        "Vanilla, refusing below a probability of its answer.",
        "baseline",
        BY_PROBABILITY,
    ),
    Arm("untouched", "Not tuned; answers everything (Pretrain-T).", "baseline", {"tuning": None}),
    *(
        Arm(f"untouched-{by}", f"Not tuned; refuses by {by}.", "baseline", {"by": by})
        for by in ("p_predict", "entropy", "p_true")
    ),
    Arm(
        "shuffled",
        "R-Tuning with its labels dealt out at random.",
        "control",
        _tuned(shuffle_labels=True),
    ),
    Arm(
        "r-tuning-r-shuffled",
        "R-Tuning-R with refusals in the place of as many answers, drawn at random.",
        "control",
        {"tuning": {"texts": "replace", "shuffle_labels": True}, "by": "p_refusal"},
    ),
    *(
        Arm(f"{name}.seen-{n}", f"Refusals of facts read {n} times.", role, {**of, "exposure": n})
        for name, role, of in LOOKED_INTO
        for n in EXPOSURES
    ),
    *(
        Arm(f"{name}.{who}", f"Refusals of {who}.", role, {**of, "answerable": who == "twins"})
        for name, role, of in LOOKED_INTO
        for who in ("strangers", "twins")
    ),
)

ABSTRACT = "abstract of arXiv:2311.09677; no figure of its tables could be verified"


def _claim(statement: str, direction: Greater | Monotone) -> Claim:
    return Claim("r-tuning", statement, direction, "unverified", ABSTRACT)


def _falls(name: str) -> Monotone:
    levels = tuple(f"{name}.seen-{n}" for n in EXPOSURES)
    return Monotone(levels, rising=False, slack=0.1, metric="refused")


CLAIMS = (
    *(
        _claim(
            f"What {name} answers is right more often than what vanilla answers ({exam}).",
            Greater(name, "vanilla", metric=f"right_{exam}"),
        )
        for name in ("r-tuning", "r-tuning-u", "r-tuning-r")
        for exam in ("id", "ood")
    ),
    *(
        _claim(
            f"{name} ranks its answers better than vanilla does ({exam}, average precision).",
            Greater(name, "vanilla", metric=f"ap_{exam}"),
        )
        for name in ("r-tuning", "r-tuning-r")
        for exam in ("id", "ood")
    ),
    *(
        _claim(statement, Greater(name, control, metric=f"{metric}_{exam}"))
        for name, control in (("r-tuning", "shuffled"), ("r-tuning-r", "r-tuning-r-shuffled"))
        for exam in ("id", "ood")
        for metric, statement in (
            (
                "right",
                f"What {name} answers is right more often than with shuffled labels ({exam}).",
            ),
            ("ap", f"{name} ranks its answers better than with shuffled labels ({exam})."),
        )
    ),
    *(
        _claim(
            f"The certainty word of r-tuning ranks better than with shuffled labels ({exam}).",
            Greater("r-tuning", "shuffled", metric=f"ap_sure_{exam}"),
        )
        for exam in ("id", "ood")
    ),
    *(
        _claim(
            f"What {name} answers is right more often than what vanilla with a threshold on its "
            "probabilities answers (id).",
            Greater(name, "vanilla-threshold", metric="right_id"),
        )
        for name in ("r-tuning", "r-tuning-r")
    ),
    *(
        _claim(f"{name} refuses less the more often a fact was read (slack 0.1).", _falls(name))
        for name in ("r-tuning", "r-tuning-r", "vanilla-threshold")
    ),
    *(
        _claim(
            f"{name} refuses strangers more often than their known twins.",
            Greater(f"{name}.strangers", f"{name}.twins", metric="refused_strangers"),
        )
        for name in ("r-tuning", "r-tuning-r", "vanilla-threshold")
    ),
)

R_TUNING = Replication(
    system="r-tuning",
    title="R-Tuning: a model that says what it does not know",
    source="Zhang et al. 2024, NAACL, arXiv:2311.09677.",
    method="evaluate.probe, tune.refusal, evaluate.refusal",
    recipe="recipes/r-tuning.yaml",
    arms=ARMS,
    claims=CLAIMS,
    cell=cell,
    plan=SeedPlan.of(0, tuning=[1], testing=[101, 102, 103, 104, 105]),
    not_measured=(
        "Other models than seedling:large: certainty in words asks for depth that it hardly has.",
        "Several tasks at once, and the paper's own data sets and models.",
        "Exam questions of different test seeds overlap: the world has so many facts and no more.",
    ),
    metrics={
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
    },
    plots=(
        Curve(
            name="exposure",
            title="Refusals of what was read seldom and often",
            lines={
                name: tuple(f"{name}.seen-{n}" for n in EXPOSURES) for name, _, _ in LOOKED_INTO
            },
            x=EXPOSURES,
            x_label="how often the fact stands in what the model read (times)",
            y_label="questions refused (share)",
            metric="refused",
            scale="even",
        ),
        Frontier(
            name="coverage",
            title="Fewer answers, more of them right",
            x_metric="coverage_id",
            y_metric="right_id",
            x_label="questions answered (share)",
            y_label="right among the answered (share)",
            beside=tuple(arm.name for arm in ARMS if "." not in arm.name),
        ),
    ),
)
