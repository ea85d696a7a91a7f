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
gain of other texts, not of knowledge; the claims against shuffled labels tell them apart. That the
certainty word is learnt where there is something to learn it from is shown by `r-tuning-names`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tilth.almanac.skills import Split
from tilth.almanac.strangers import fact_questions, stranger_questions
from tilth.data import Example
from tilth.replicate._refusal_arms import arms_with_parts, claims_of, plots_of
from tilth.replicate._refusal_bench import METRICS, Bench, refusal_cell
from tilth.replicate.frame import Arm, Measured, Replication
from tilth.seeds import Seed, SeedPlan, TestSeed

__all__ = ["R_TUNING", "cell", "pages"]

KNOWN = ("crop", "colour", "month", "soil", "home", "enemy", "remedy", "host")
"""Relations of varieties and pests: those of tuning and of the ``id`` exam."""

UNSEEN = ("founder", "trade", "river", "market")
"""Relations of places: those of the ``ood`` exam."""

EXPOSURES = (0, 1, 4, 16, 64, 256)
MODEL = "seedling:large"
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
    """Probes, tunes and examines one arm, or reads from the exams of another arm."""
    return refusal_cell(
        arm, seed, quick, folder, lambda _: Bench(pages(seed, quick), MODEL, TUNING)
    )


R_TUNING = Replication(
    system="r-tuning",
    title="R-Tuning: a model that says what it does not know",
    source="Zhang et al. 2024, NAACL, arXiv:2311.09677.",
    method="evaluate.probe, tune.refusal, evaluate.refusal",
    recipe="recipes/r-tuning.yaml",
    arms=arms_with_parts(EXPOSURES),
    claims=claims_of("r-tuning", EXPOSURES),
    cell=cell,
    plan=SeedPlan.of(0, tuning=[1], testing=[101, 102, 103, 104, 105]),
    not_measured=(
        "Other models than seedling:large: certainty in words asks for depth that it hardly has.",
        "Several tasks at once, and the paper's own data sets and models.",
        "Exam questions of different test seeds overlap: the world has so many facts and no more.",
    ),
    metrics=METRICS,
    plots=plots_of(EXPOSURES, "how often the fact stands in what the model read (times)"),
)
