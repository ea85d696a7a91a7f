"""Comparison of arms with a baseline on the same questions and seeds, with paired intervals."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from tilth.errors import DataError
from tilth.evaluate._scores import ScoreRow, read_scores
from tilth.method import Method, Outcome, ScoresRef, Work
from tilth.stats import Estimate, bootstrap, paired_difference, permutation_test

__all__ = ["Compare"]

Scores = dict[int, np.ndarray]
"""Scores by seed, [N] each, in an order of questions that is the same for every arm."""


class Compare(Method):
    """Says by how much each arm differs from the baseline, with a paired interval.

    Arms are paired on seed and question; every resample of the bootstrap draws the same seeds and
    questions on both sides (:mod:`tilth.stats`). ``p`` is a two-sided sign-flip test over
    questions. Intervals and p-values are per comparison, not corrected for the number of arms.
    Defaults are our choice.

    Example:
        >>> verdict = Compare(baseline="base", arms={"tuned": "exam"}).to("v")  # doctest: +SKIP
        >>> verdict.manifest.metrics["tuned_minus_base"]                          # doctest: +SKIP
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "compare"
    kind: ClassVar = "comparison"
    judges: ClassVar = True
    example: ClassVar[dict[str, Any]] = {"baseline": "{scores}", "arms": {"tuned": "{scores}"}}

    baseline: ScoresRef = Field(description="Scores that the arms are measured against.")
    arms: dict[str, ScoresRef] = Field(min_length=1, description="Scores by the arm's name.")
    baseline_name: str = Field("base", description="The baseline's name among the arms.")
    level: float = Field(0.95, gt=0, lt=1, description="Confidence level.")
    statistic: Literal["mean", "iqm"] = Field("mean", description="What is compared.")
    resamples: int = Field(10_000, ge=100, description="Bootstrap samples.")

    @model_validator(mode="after")
    def _names_differ(self) -> Compare:
        if self.baseline_name in self.arms:
            raise ValueError(
                f"an arm is called {self.baseline_name!r} like the baseline; rename it or set "
                "baseline_name"
            )
        return self

    def run(self, work: Work) -> Outcome:
        """Writes ``comparison.json``.

        Raises:
            DataError: An arm lacks a question of the baseline or has one more; names the first.
        """
        base = _keyed(read_scores(self.baseline))
        arms = {self.baseline_name: base}
        for name, ref in self.arms.items():
            arms[name] = _keyed(read_scores(ref))
            _same_questions(base, arms[name], self.baseline_name, name)
        skills = sorted({row["skill"] for row in base.values()})
        result: dict[str, Any] = {
            "metric": "score",
            "statistic": self.statistic,
            "baseline": self.baseline_name,
            "level": self.level,
            "arms": {name: self._arm(base, rows, skills) for name, rows in arms.items()},
            "differences": {name: self._difference(base, arms[name], skills) for name in self.arms},
            "seeds": sorted({seed for seed, _ in base}),
            "items_per_seed": len(base) // len({seed for seed, _ in base}),
        }
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (work.folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
        return self._outcome(work, result)

    def _arm(
        self,
        base: dict[tuple[int, str], ScoreRow],
        rows: dict[tuple[int, str], ScoreRow],
        skills: list[str],
    ) -> dict[str, Any]:
        return {
            "estimate": self._estimate(_scores(base, rows)).as_dict(),
            "by_skill": {s: self._estimate(_scores(base, rows, s)).as_dict() for s in skills},
            "chance": _chance(skills),
        }

    def _estimate(self, scores: Scores) -> Estimate:
        return bootstrap(scores, self.statistic, level=self.level, resamples=self.resamples)

    def _difference(
        self,
        base: dict[tuple[int, str], ScoreRow],
        rows: dict[tuple[int, str], ScoreRow],
        skills: list[str],
    ) -> dict[str, Any]:
        def paired(skill: str | None = None) -> dict[str, Any]:
            ours, theirs = _scores(base, rows, skill), _scores(base, base, skill)
            return paired_difference(
                ours, theirs, self.statistic, level=self.level, resamples=self.resamples
            ).as_dict()

        return {
            "estimate": paired(),
            "p": permutation_test(_scores(base, rows), _scores(base, base)),
            "by_skill": {skill: paired(skill) for skill in skills},
        }

    def _outcome(self, work: Work, result: dict[str, Any]) -> Outcome:
        metrics: dict[str, Any] = {}
        for name, arm in result["arms"].items():
            metrics[name] = arm["estimate"]["value"]
            work.say(f"{name}: {Estimate(**arm['estimate'])}")
        for name, difference in result["differences"].items():
            estimate = Estimate(**difference["estimate"])
            metrics[f"{name}_minus_{self.baseline_name}"] = estimate.value
            verdict = "excludes 0" if estimate.excludes(0) else "includes 0: not shown"
            work.say(f"{name} - {self.baseline_name}: {estimate}, {verdict}")
        open_points = ["training randomness: every arm is one trained model"]
        if len(result["differences"]) > 1:
            open_points.append("the intervals are not corrected for the number of comparisons")
        return Outcome(metrics=metrics, not_measured=open_points)


def _keyed(rows: list[ScoreRow]) -> dict[tuple[int, str], ScoreRow]:
    keyed: dict[tuple[int, str], ScoreRow] = {}
    for row in rows:
        key = (row["seed"], row["item"])
        if key in keyed:
            raise DataError("a question is scored twice", where=f"seed {key[0]}, item {key[1]}")
        keyed[key] = row
    return keyed


def _same_questions(
    base: dict[tuple[int, str], ScoreRow],
    arm: dict[tuple[int, str], ScoreRow],
    base_name: str,
    arm_name: str,
) -> None:
    for there, here, absent in ((base, arm, arm_name), (arm, base, base_name)):
        for seed, item in there:
            if (seed, item) not in here:
                raise DataError(
                    f"{absent!r} has no score for a question that the other side answered",
                    where=f"seed {seed}, item {item}",
                    fix="score both with the same exam settings and the same test seeds",
                )


def _scores(
    base: dict[tuple[int, str], ScoreRow],
    rows: dict[tuple[int, str], ScoreRow],
    skill: str | None = None,
) -> Scores:
    """Scores of `rows` in the order of `base`; with `skill`, its questions only."""
    by_seed: dict[int, list[float]] = {}
    for key, row in base.items():
        if skill is None or row["skill"] == skill:
            by_seed.setdefault(key[0], []).append(rows[key]["score"])
    return {seed: np.array(scores) for seed, scores in sorted(by_seed.items())}


def _chance(skills: list[str]) -> dict[str, float]:
    """The score of blind answers, where the almanac knows it."""
    from tilth.almanac.skills import SKILLS

    return {skill: SKILLS[skill].chance for skill in skills if skill in SKILLS}
