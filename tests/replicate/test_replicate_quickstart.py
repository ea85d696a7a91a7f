"""The quickstart's cells: the right part of the recipe, and its scores in an order that pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilth.errors import RecipeError
from tilth.recipe import Recipe
from tilth.registry import methods
from tilth.replicate import Arm, Measured, replicate
from tilth.replicate.quickstart import QUICKSTART, _recipe_file, _scores, cell, part
from tilth.seeds import TestSeed


def step(id: str, do: str, **settings: Any) -> dict[str, Any]:
    return {"id": id, "do": do, "with": settings}


RECIPE = {
    "name": "demo",
    "model": "seedling:small",
    "steps": [
        step("write", "generate.self_instruct", seeds="seeds.jsonl"),
        step("mixed", "generate.shuffled", data="${steps.write}"),
        step("tuned", "tune.sft", model="${model}", data="${steps.write}"),
        step("control", "tune.sft", model="${model}", data="${steps.mixed}"),
        step("exam_base", "evaluate.exams", model="${model}"),
        step("exam", "evaluate.exams", model="${model}+${steps.tuned}"),
        step("exam_control", "evaluate.exams", model="${model}+${steps.control}"),
        step(
            "verdict",
            "evaluate.compare",
            baseline="${steps.exam_base}",
            arms={"tuned": "${steps.exam}", "shuffled": "${steps.exam_control}"},
        ),
    ],
}


def steps_for(arm: str) -> tuple[list[str], str]:
    recipe, last = part(Recipe.of(RECIPE), arm)
    return [s.id for s in recipe.steps], last


def test_a_cell_runs_only_what_its_arm_needs() -> None:
    assert steps_for("base") == (["exam_base"], "exam_base")
    assert steps_for("tuned") == (["write", "tuned", "exam"], "exam")
    assert steps_for("shuffled") == (["write", "mixed", "control", "exam_control"], "exam_control")


def test_an_unknown_arm_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'tuned'"):
        part(Recipe.of(RECIPE), "tunde")
    with pytest.raises(RecipeError, match="compares nothing"):
        part(Recipe.of({**RECIPE, "steps": RECIPE["steps"][:2]}), "tuned")


def test_scores_are_in_the_order_of_items(tmp_path: Path) -> None:
    rows = [
        {"item": "b/1", "skill": "b", "score": 0.0},
        {"item": "a/2", "skill": "a", "score": 0.5},
        {"item": "a/1", "skill": "a", "score": 1.0},
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert _scores(path) == {"score": [1.0, 0.5, 0.0], "score:a": [1.0, 0.5], "score:b": [0.0]}


def test_every_arm_exists_in_the_recipe_of_the_checkout() -> None:
    recipe = Recipe.read(_recipe_file())
    for arm in QUICKSTART.arms:
        _, last = part(recipe, arm.settings["in_recipe"])
        assert last


@pytest.mark.integration
@pytest.mark.skipif(not methods("evaluate"), reason="the package is only on the path")
def test_cells_of_one_seed_run_the_recipe_and_share_artefacts(tiny: Path, tmp_path: Path) -> None:
    overrides = [f"model={tiny}"]
    for exam in ("base", "base_plain"):
        overrides += [f"{exam}.skills=[history, lists]", f"{exam}.per_level=1"]
        overrides += [f"{exam}.max_new_tokens=4", f"{exam}.shots=0"]

    def measured(name: str, seed: int) -> Measured:
        arm = Arm(name, settings={"in_recipe": name, "overrides": overrides})
        folder = tmp_path / "cells" / f"{name}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return cell(arm, TestSeed(seed), True, folder)

    first = measured("base", 101)
    plain = measured("base_plain", 101)
    assert {"score", "score:history", "score:lists"} == set(first.scores)
    assert [len(r) for r in first.scores.values()] == [len(r) for r in plain.scores.values()]
    assert first.spent.flops > 0
    shared = [p for p in (tmp_path / "shared" / "artefacts-101").iterdir() if p.name[0] != "."]
    assert sorted(p.name.rpartition("-")[0] for p in shared) == ["base", "base_plain"]
    again = measured("base", 101)
    assert (again.scores, again.spent) == (first.scores, first.spent)
    assert json.loads((tmp_path / "cells/base-101/run/run.json").read_text())["steps"][0]["cached"]


@pytest.mark.slow
def test_the_quickstart_replicates(tmp_path: Path) -> None:
    result = replicate(QUICKSTART, quick=True, results=tmp_path, runs=tmp_path / "runs")
    assert result.complete
    verdicts = {
        claim.direction.arms: result.verdicts[claim.statement] for claim in QUICKSTART.claims
    }
    # Against the base in its own plain form nothing is shown: see the page of the result.
    assert verdicts.pop(("tuned", "base-plain")) == "not shown"
    assert set(verdicts.values()) == {"reproduced"}
