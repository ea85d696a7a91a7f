"""R-Tuning where a name shows whether it was read about: is certainty learnt if it can be?

In the almanac names are made of the same few pieces and every fact has its own exposure, so that
nothing but the answer itself betrays what is not known, and the certainty word of `r-tuning` is not
learnt there. Here every name is a word (:mod:`tilth.replicate._names_world`), and a seed makes its
own world and its own untouched model. Half of the names are for tuning, a quarter for choosing the
threshold, a quarter for the exams: ``id`` about the two relations of tuning, ``ood`` about the
third. Strangers are names that the model never read, beside names that it read often.

Arms, numbers and controls are those of `r-tuning`. Every question has the greedy answer's
probability beside it, and in so small a world that is hard to beat: a vanilla model with a
threshold on it is the baseline to look at.

Chosen on tuning seed 1, before any test seed was drawn: ten epochs at 3e-4, where the certainty
word ranked best among rates of 1e-4, 3e-4 and 1e-3 and five, ten and twenty epochs (five settings).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tilth.data import Example
from tilth.replicate._names_world import EXPOSURES, RELATIONS, NamesWorld, base_model
from tilth.replicate._refusal_arms import arms_with_parts, claims_of, plots_of
from tilth.replicate._refusal_bench import METRICS, Bench, refusal_cell
from tilth.replicate.frame import Arm, Measured, Replication
from tilth.seeds import Seed, SeedPlan, derive

__all__ = ["R_TUNING_NAMES", "cell", "pages"]

TUNING: dict[str, Any] = {
    "adapter": "full",
    "loss": "completion",
    "batch_size": 8,
    "learning_rate": 3e-4,
    "epochs": 10,
    "d0_answer": "model_prediction",
}
"""Settings that all tuned arms share."""


def pages(world: NamesWorld, seed: Seed) -> dict[str, list[Example]]:
    """The questions of a world: for training, for validation, and the exam in its three parts."""
    rng = random.Random(derive(int(seed), "names world", "pages"))
    order = rng.sample(world.names, len(world.names))
    half, quarter = len(order) // 2, len(order) // 4
    tuning, choosing, examined = order[:half], order[half:-quarter], order[-quarter:]
    known, unseen = RELATIONS[:2], RELATIONS[2:]

    def asked(names: list[str], relations: tuple[str, ...]) -> list[Example]:
        facts = [f for name in names for f in world.facts[name] if f.relation in relations]
        return [fact.example(rng.randrange(2)) for fact in facts]

    parts = {"id": asked(examined, known), "ood": asked(examined, unseen)}
    unread, well_read = (
        [name for name in examined if world.facts[name][0].exposure == n]
        for n in (EXPOSURES[0], EXPOSURES[-1])
    )
    parts["strangers"] = []
    for stranger, twin in zip(unread, well_read, strict=False):
        relation = rng.randrange(len(known))
        form, pair = rng.randrange(2), f"{stranger}/{twin}"
        rows = [world.facts[name][relation].example(form) for name in (stranger, twin)]
        for row in rows:
            row.meta["pair"] = pair
        rows[0].meta["answerable"] = False
        parts["strangers"] += rows
    for name, part in parts.items():
        for row in part:
            row.meta["exam"] = name
    return {
        "train": asked(tuning, known),
        "validation": asked(choosing, known),
        "exam": [row for part in parts.values() for row in part],
    }


def cell(arm: Arm, seed: Seed, quick: bool, folder: Path) -> Measured:
    """Makes the world and the untouched model of the seed, then does what `r-tuning` does."""

    def bench(home: Path) -> Bench:
        world = NamesWorld(seed, 60) if quick else NamesWorld(seed)
        model = base_model(world, seed, home / "model")
        return Bench(pages(world, seed), str(model), TUNING)

    return refusal_cell(arm, seed, quick, folder, bench)


R_TUNING_NAMES = Replication(
    system="r-tuning-names",
    title="R-Tuning where a name shows whether it was read about",
    source="Zhang et al. 2024, NAACL, arXiv:2311.09677.",
    method="evaluate.probe, tune.refusal, evaluate.refusal",
    recipe="recipes/r-tuning.yaml",
    arms=arms_with_parts(EXPOSURES),
    claims=claims_of("r-tuning-names", EXPOSURES),
    cell=cell,
    plan=SeedPlan.of(0, tuning=[1], testing=[101, 102, 103, 104, 105]),
    not_measured=(
        "Models of more than 0.2 million parameters; the paper's own data sets and models.",
        "Facts whose exposure differs within a name.",
    ),
    metrics=METRICS,
    plots=plots_of(EXPOSURES, "how often a pass over the text states the fact (times)"),
)
