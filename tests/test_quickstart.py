"""The main job: the quickstart recipe on stand-ins in seconds, on the seedlings in minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_teacher import serve

from tilth.models.reference import SEEDLINGS
from tilth.recipe import Recipe
from tilth.run import RunResult, run

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
EXAMS = ("base", "base_plain", "tuned_exam", "shuffled_exam")
HERE = all((SEEDLINGS / name / "config.json").is_file() for name in ("small", "teacher"))


def verdict_of(result: RunResult) -> dict[str, Any]:
    path = result.artefacts["verdict"].path("comparison.json")
    verdict: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return verdict


@pytest.mark.integration
def test_the_recipe_runs_whole_on_stand_ins(tiny: Path, tmp_path: Path) -> None:
    small = ["write.prompts=english", "write.count=24", "write.round_size=4", "keep.count=16"]
    for step in ("tuned", "shuffled_tuned"):
        small += [f"{step}.max_steps=2", f"{step}.adapter.rank=2", f"{step}.batch_size=4"]
    for step in EXAMS:
        small += [f"{step}.per_level=1", f"{step}.skills=[lists]", f"{step}.max_new_tokens=4"]
    small += ["seeds.testing=[101, 102]"]
    with serve() as teacher:
        overrides = [f"model={tiny}", f"write.teacher={teacher}", *small]
        result = run(Recipe.read(RECIPE, overrides), tmp_path / "run", say=lambda line: None)
        again = run(Recipe.read(RECIPE, overrides), tmp_path / "run", say=lambda line: None)
    verdict = verdict_of(result)
    assert set(verdict["arms"]) == {"base", "base_plain", "shuffled", "tuned"}
    assert verdict["seeds"] == [101, 102]
    assert all(artefact.cached for artefact in again.artefacts.values())


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="the seedlings are not here")
def test_tuning_on_self_written_data_beats_the_base(tmp_path: Path) -> None:
    gains = verdict_of(run(Recipe.read(RECIPE), tmp_path / "run"))["differences"]
    assert gains["tuned"]["estimate"]["low"] > 0
    assert gains["tuned"]["estimate"]["low"] > gains["shuffled"]["estimate"]["high"]
