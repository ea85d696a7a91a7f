"""The arms of a run: from its comparison, or worked out from its scores where there is none."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from tilth.report.reading import RunView, StepView, json_rows
from tilth.stats import mean_interval, paired_difference

__all__ = ["against", "arm_files", "comparison_of"]


def comparison_of(run: RunView) -> dict[str, Any]:
    """What ``comparison.json`` says; without one, each scores step is an arm of its own.

    Returns:
        The form of ``comparison.json`` with at least ``metric``, ``level``, ``arms`` and
        ``differences``; ``{}`` where nothing was scored.
    """
    comparison = run.comparison
    if comparison:
        return {"metric": "score", "level": 0.95, "differences": {}, **comparison}
    arms = {step.id: arm for step in run.of_kind("scores") if (arm := _arm(step))}
    if not arms:
        return {}
    return {"metric": "score", "level": 0.95, "baseline": "", "arms": arms, "differences": {}}


def arm_files(run: RunView) -> dict[str, Path]:
    """The score file of each arm, found through the settings of the last comparison."""
    for step in reversed(run.of_kind("comparison")):
        settings = step.manifest.settings
        references = {str(run.comparison.get("baseline")): settings.get("baseline", "")}
        references.update(settings.get("arms") or {})
        steps = {arm: run.step_at(str(reference)) for arm, reference in references.items()}
        files = {arm: found.file("scores.jsonl") for arm, found in steps.items() if found}
        return {arm: path for arm, path in files.items() if path}
    return {}


def against(run: RunView, arm: str) -> dict[str, dict[str, Any]]:
    """The paired difference of `arm` less each other arm that is not the baseline.

    A comparison holds the differences to its baseline only; whether a gain is more than a control's
    needs the difference to the control.
    """
    comparison, files = run.comparison, arm_files(run)
    others = [a for a in comparison.get("differences", {}) if a != arm and a in files]
    if not others or arm not in files:
        return {}
    ours = _by_item(files[arm])
    found = {}
    for other in others:
        theirs = _by_item(files[other])
        both = sorted(ours.keys() & theirs.keys())
        sides: tuple[dict[Any, list[float]], dict[Any, list[float]]] = ({}, {})
        for key in both:
            for side, scores in zip(sides, (ours, theirs), strict=True):
                side.setdefault(key[0], []).append(scores[key])
        if both:
            statistic, level = comparison.get("statistic", "mean"), comparison.get("level", 0.95)
            found[other] = paired_difference(*sides, statistic, level=level).as_dict()
    return found


def _by_item(path: Path) -> dict[tuple[int, str], float]:
    return {(int(r["seed"]), str(r["item"])): float(r["score"]) for r in json_rows(path)}


def _arm(step: StepView) -> dict[str, Any] | None:
    path = step.file("scores.jsonl")
    by_seed: dict[Any, list[float]] = defaultdict(list)
    by_skill: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in json_rows(path) if path else ():
        by_seed[row["seed"]].append(float(row["score"]))
        by_skill[str(row.get("skill", "all"))][row["seed"]].append(float(row["score"]))
    if not by_seed:
        return None
    skills = by_skill if len(by_skill) > 1 else {}
    return {
        "estimate": mean_interval(by_seed).as_dict(),
        "by_skill": {s: mean_interval(rows).as_dict() for s, rows in sorted(skills.items())},
        "chance": {},
    }
