"""R-Tuning's replication: its questions, its arms, one quick cell of each kind, and its recipe.

Run this file to write the recipe's questions again: ``python tests/replicate/...``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilth.almanac.strangers import fact_questions, stranger_questions
from tilth.data import Example
from tilth.recipe import Recipe
from tilth.replicate._refusal_bench import scores_of
from tilth.replicate.frame import Measured
from tilth.replicate.r_tuning import EXPOSURES, KNOWN, R_TUNING, UNSEEN, cell, pages
from tilth.run import run
from tilth.seeds import TestSeed, TuningSeed
from tilth.validate import validate

ROOT = Path(__file__).parents[2]
PARTS = ("id", "ood", "strangers")
RECIPE = ROOT / "recipes" / "r-tuning.yaml"


def of_recipe() -> dict[str, list[dict[str, Any]]]:
    """The questions beside the recipe: short rows, as a user might write them."""
    asked = {
        "train": fact_questions(KNOWN, "train", 0, 800),
        "validation": fact_questions(KNOWN, "validation", 0, 200),
        "test": [*fact_questions(KNOWN, "tuning", 0, 200), *stranger_questions(KNOWN, "tuning", 0)],
    }
    return {name: [short(row) for row in rows] for name, rows in asked.items()}


def short(row: Example) -> dict[str, Any]:
    kept = {k: row.meta[k] for k in ("exposure", "answerable", "pair") if k in row.meta}
    return {"question": row.prompt, "answer": row.answer, **kept}


def test_exams_share_no_entity_with_tuning() -> None:
    for seed in (TuningSeed(1), TestSeed(101)):
        found = pages(seed, quick=False)
        names = {k: {row.meta["entity"] for row in rows} for k, rows in found.items()}
        assert not names["exam"] & (names["train"] | names["validation"])
        assert not names["train"] & names["validation"]
        parts = {part: [r for r in found["exam"] if r.meta["exam"] == part] for part in PARTS}
        relations = {part: {row.meta["relation"] for row in rows} for part, rows in parts.items()}
        assert relations["ood"] <= set(UNSEEN)
        assert relations["id"] | {row.meta["relation"] for row in found["train"]} <= set(KNOWN)
        assert {row.meta["exposure"] for row in parts["id"]} == set(EXPOSURES)


def row(correct: bool, refused: bool, exposure: int = 4, **more: Any) -> dict[str, Any]:
    meta = {"exposure": exposure, "misstated": False}
    numbers = {"trust": 0.5 - refused / 4, "p_sure": 0.5, "confidence": 0.5}
    told = {"correct": correct, "refused": refused, "meta": meta, "answerable": True, "pair": "a"}
    return {**told, **numbers, **more}


def test_scores_by_hand() -> None:
    exam = [row(True, False), row(False, False), row(True, True, 64), row(False, True, 0)]
    stranger = row(False, True, answerable=False)
    tables = {"id": exam, "ood": exam[:1], "strangers": [stranger, row(True, False)]}
    scores = scores_of(tables, {})
    assert (scores["right_id"], scores["coverage_id"]) == (0.5, 0.5)
    assert (scores["accuracy_id"], scores["over_refusal_id"]) == (0.5, 0.5)
    assert (scores["refused_strangers"], scores["refused_twins"]) == (1, 0)
    assert scores_of(tables, {"exposure": 4}) == {"refused": 0}
    assert scores_of(tables, {"exposure": 64}) == {"refused": 1}
    assert scores_of(tables, {"answerable": False}) == {"refused_strangers": [1.0]}


def test_every_arm_has_its_baselines_and_controls() -> None:
    roles = {arm.name: arm.role for arm in R_TUNING.arms}
    assert roles["vanilla"] == roles["untouched"] == "baseline"
    assert roles["shuffled"] == "control"
    assert len(R_TUNING.seeds(quick=False).testing) >= 5


@pytest.mark.slow
@pytest.mark.integration
def test_quick_cells_share_what_they_can(tmp_path: Path) -> None:
    arms = {arm.name: arm for arm in R_TUNING.arms}

    def measured(name: str) -> Measured:
        folder = tmp_path / "cells" / name
        folder.mkdir(parents=True, exist_ok=True)
        return cell(arms[name], TestSeed(101), True, folder)

    base = measured("untouched-p_predict")
    worded = measured("r-tuning-r")
    assert set(base.scores) == set(worded.scores)
    assert set(measured("r-tuning-r.seen-0").scores) == {"refused"}
    strangers = measured("r-tuning-r.strangers").scores["refused_strangers"]
    twins = measured("r-tuning-r.twins").scores["refused_strangers"]
    assert len(strangers) == len(twins) == 6  # type: ignore[arg-type]
    made = {p.name.rpartition("-")[0] for p in tmp_path.glob("shared/TestSeed-101/artefacts/*-*")}
    assert {"probe", "tuned", "exam"} <= made
    assert len(list(tmp_path.glob("shared/TestSeed-101/artefacts/tuned-*"))) == 1


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_recipes_files_are_the_almanacs(name: str) -> None:
    path = RECIPE.parent / "r-tuning" / f"{name}.jsonl"
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == of_recipe()[name]


def test_the_recipe_is_valid() -> None:
    assert [ready.step.id for ready in validate(Recipe.read(RECIPE))][:2] == ["probe", "tuned"]


@pytest.mark.slow
@pytest.mark.integration
def test_the_recipe_runs(tmp_path: Path) -> None:
    result = run(Recipe.read(RECIPE), tmp_path / "run", say=lambda line: None)
    tuned, shuffled = (
        result.artefacts[step].manifest.metrics for step in ("tuned_refuses", "shuffled_refuses")
    )
    assert tuned["unanswerable_refused"]["value"] > tuned["over_refusal"]["value"] + 0.15
    assert tuned["willing_accuracy"]["value"] > tuned["accuracy"]["value"] + 0.05
    assert tuned["willing_accuracy"]["value"] > shuffled["willing_accuracy"]["value"] + 0.1
    assert tuned["ap"]["low"] > shuffled["ap"]["value"]


if __name__ == "__main__":
    for file, rows in of_recipe().items():
        path = RECIPE.parent / "r-tuning" / f"{file}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
