"""The arms of a run: from its comparison, or worked out from its scores where there is none."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tilth.report.reading import RunView, StepView, json_rows
from tilth.stats import mean_interval

__all__ = ["comparison_of"]


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
