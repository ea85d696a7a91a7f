"""Runs a replication to its end: cells, choices, verdicts, and the result to commit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilth._manifest import installed_versions, now
from tilth.artefacts import write_atomically
from tilth.cost import Ledger
from tilth.errors import RecipeError, TilthError
from tilth.replicate._worker import Job
from tilth.replicate.cells import compute, failure_of, read_cell
from tilth.replicate.claims import Claim, Finding, judge
from tilth.replicate.frame import Arm, Replication
from tilth.stats import mean_interval

__all__ = ["Result", "replicate", "result_path"]

SCHEMA = 1
Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A judged replication.

    Attributes:
        path: The JSON file that was written.
        body: Its content.
    """

    path: Path
    body: dict[str, Any]

    @property
    def complete(self) -> bool:
        """No cell failed."""
        return not self.body["failed"]

    @property
    def verdicts(self) -> dict[str, str]:
        """Statement -> verdict."""
        return {claim["statement"]: claim["verdict"] for claim in self.body["claims"]}


def result_path(results: str | Path, system: str, quick: bool = False) -> Path:
    """``SYSTEM.json``, or ``SYSTEM.quick.json``: a quick result never replaces a full one."""
    return Path(results) / (f"{system}.quick.json" if quick else f"{system}.json")


def replicate(
    replication: Replication,
    *,
    quick: bool = False,
    workers: int = 2,
    results: str | Path = "results",
    runs: str | Path = "runs",
    say: Say = print,
) -> Result:
    """Computes what is missing, judges every claim, writes ``results/SYSTEM.json``.

    Killed at any moment, the same call continues: finished cells are kept. A cell that fails is
    named and leaves its claims "not shown"; the others go on.

    Args:
        replication: From :func:`tilth.replicate.load`.
        quick: Fewer seeds, and what the cell itself makes smaller.
        workers: Worker processes, each with one computing thread.
        results: Folder of the results to commit.
        runs: Folder for the cells: ``runs/replicate/SYSTEM`` is used.
        say: Prints one line for the user.

    Raises:
        TilthError: The results cannot be written, or a setting is no plain value.
    """
    started = now()
    if workers < 1:
        raise RecipeError(
            f"{workers} workers compute nothing", where="workers", fix="use 1 or more"
        )
    home = Path(runs) / "replicate" / (replication.system + ("-quick" if quick else ""))
    grid = _Grid(replication, quick, home, workers, say)
    arms = grid.choose()
    grid.test(arms)
    body = {
        "schema": SCHEMA,
        "system": replication.system,
        "title": replication.title,
        "source": replication.source,
        "method": replication.method,
        "recipe": replication.recipe,
        "quick": quick,
        "claims": [_claim(claim, grid) for claim in replication.claims],
        "arms": [_arm(arm, grid) for arm in arms],
        "choices": grid.choices,
        "seeds": replication.seeds(quick).as_dict(),
        "level": replication.level,
        "cost": grid.cost.as_dict(),
        "cells": grid.count,
        "failed": grid.failed,
        "machine": {"processors": os.cpu_count(), "workers": workers, "threads_per_worker": 1},
        "versions": installed_versions(),
        "not_measured": list(replication.not_measured),
        **_declared(replication),
        "started": started,
        "finished": now(),
    }
    path = result_path(results, replication.system, quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return Result(path, body)


def _declared(replication: Replication) -> dict[str, Any]:
    """What the page of the paper needs beside the scores."""
    return {
        "module": replication.cell.__module__,
        "metrics": dict(replication.metrics),
        "plots": [plot.as_dict() for plot in replication.plots],
    }


@dataclass
class _Grid:
    """Arms by seeds: what was computed and what is known."""

    replication: Replication
    quick: bool
    home: Path
    workers: int
    say: Say
    scores: dict[str, dict[str, dict[int, list[float]]]] = field(default_factory=dict)
    choices: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    cost: Ledger = field(default_factory=Ledger)
    count: int = 0

    def choose(self) -> list[Arm]:
        """The arms with their settings chosen on the tuning seeds."""
        seeds = self.replication.seeds(self.quick).tuning
        tried = {
            (arm.name, n): [self._job(arm.with_settings(candidate), seed) for seed in seeds]
            for arm in self.replication.arms
            for n, candidate in enumerate(arm.candidates)
        }
        found = self._compute([job for jobs in tried.values() for job in jobs])
        return [self._chosen(arm, tried, found) for arm in self.replication.arms]

    def test(self, arms: list[Arm]) -> None:
        """Computes every arm on every test seed."""
        jobs = [self._job(a, s) for a in arms for s in self.replication.seeds(self.quick).testing]
        for body in self._compute(jobs).values():
            for metric, row in body["scores"].items():
                by_arm = self.scores.setdefault(metric, {})
                by_arm.setdefault(body["arm"], {})[body["seed"]] = row

    def _chosen(
        self,
        arm: Arm,
        tried: dict[tuple[str, int], list[Job]],
        found: dict[str, dict[str, Any]],
    ) -> Arm:
        if not arm.candidates:
            return arm
        means: list[float | None] = []
        for n in range(len(arm.candidates)):
            cells = [found.get(job.key) for job in tried[arm.name, n]]
            rows = [self._metric(cell) for cell in cells if cell]
            whole = len(rows) == len(cells)
            means.append(sum(sum(r) / len(r) for r in rows) / len(rows) if whole else None)
        # A candidate that failed on a tuning seed cannot be chosen; if all did, the first stands.
        best = max(range(len(means)), key=lambda n: (means[n] is not None, means[n] or 0.0, -n))
        self.choices.append(
            {
                "arm": arm.name,
                "metric": self.replication.choose_by,
                "candidates": [
                    {"settings": dict(c), "mean": m}
                    for c, m in zip(arm.candidates, means, strict=True)
                ],
                "chosen": best,
            }
        )
        return arm.with_settings(arm.candidates[best])

    def _metric(self, cell: dict[str, Any]) -> list[float]:
        metric = self.replication.choose_by
        if metric not in cell["scores"]:
            raise RecipeError(
                f"candidates are chosen by {metric!r}, which the cell does not measure",
                where=self.replication.system,
                fix=f"it measures: {', '.join(cell['scores'])}",
            )
        return list(cell["scores"][metric])

    def _job(self, arm: Arm, seed: Any) -> Job:
        return Job.of(self.replication, arm, seed, self.quick, self.home)

    def _compute(self, jobs: list[Job]) -> dict[str, dict[str, Any]]:
        """What the cells measured, by the key of the job."""
        compute(self.replication, jobs, self.workers, self.say)
        found = {}
        for job in jobs:
            self.count += 1
            body = read_cell(job, self.say)
            if body is not None:
                found[job.key] = body
                self.cost.merge(Ledger.from_dict(body["cost"]))
            else:
                reason = failure_of(job) or "no scores"
                cell = {"arm": job.arm.name, "seed": int(job.seed), "error": reason}
                self.failed.append(cell)
        return found


def _claim(claim: Claim, grid: _Grid) -> dict[str, Any]:
    metric = claim.direction.metric
    seeds = [int(s) for s in grid.replication.seeds(grid.quick).testing]
    try:
        finding = judge(claim, grid.scores.get(metric, {}), seeds, level=grid.replication.level)
    except TilthError as error:
        finding = Finding("not shown", None, f"the arms cannot be paired: {error.problem}")
    return {
        "statement": claim.statement,
        "direction": str(claim.direction),
        "metric": metric,
        "published": claim.published,
        "source": claim.source,
        **finding.as_dict(),
    }


def _arm(arm: Arm, grid: _Grid) -> dict[str, Any]:
    scores = {
        metric: mean_interval(by_arm[arm.name], level=grid.replication.level).as_dict()
        for metric, by_arm in grid.scores.items()
        if arm.name in by_arm
    }
    return {
        "name": arm.name,
        "what": arm.what,
        "role": arm.role,
        "settings": dict(arm.settings),
        "scores": scores,
    }
