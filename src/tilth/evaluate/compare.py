"""Comparison of arms with a baseline on the same questions and seeds, with paired intervals."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tilth.errors import DataError
from tilth.evaluate._scores import ScoreRow, by_seed, read_scores, shared_items
from tilth.method import Method, Outcome, ScoresRef, Work
from tilth.stats import Estimate, bootstrap, paired_difference, permutation_test

__all__ = ["Compare"]


class Compare(Method):
    """Says by how much each arm differs from the baseline, with a paired interval.

    Arms are paired on seed and question; every resample of the bootstrap draws the same seeds and
    questions on both sides, and a question that all seeds share is drawn for all of them
    (:mod:`tilth.stats`). ``p`` is a two-sided sign-flip test over questions. Intervals and p-values
    are per comparison, not corrected for the number of arms. Defaults are our choice.

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
        base = read_scores(self.baseline)
        arms = {self.baseline_name: base}
        for name, ref in self.arms.items():
            arms[name] = read_scores(ref)
            _same_questions(base, arms[name], self.baseline_name, name)
        asked = _keys(base, self.baseline_name)
        skills = sorted({row["skill"] for row in base})
        seeds = sorted({seed for seed, _ in asked})
        result: dict[str, Any] = {
            "metric": "score",
            "statistic": self.statistic,
            "baseline": self.baseline_name,
            "level": self.level,
            "arms": {name: self._arm(rows, skills) for name, rows in arms.items()},
            "differences": {name: self._difference(arms[name], base, skills) for name in self.arms},
            "seeds": seeds,
            "items_per_seed": len(asked) // len(seeds),
        }
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (work.folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
        return self._outcome(work, result)

    def _arm(self, rows: list[ScoreRow], skills: list[str]) -> dict[str, Any]:
        def estimate(rows: list[ScoreRow]) -> dict[str, Any]:
            return bootstrap(by_seed(rows), self.statistic, **self._options(rows)).as_dict()

        return {
            "estimate": estimate(rows),
            "by_skill": {skill: estimate(_only(skill, rows)) for skill in skills},
            "chance": _chance(skills),
        }

    def _difference(
        self, rows: list[ScoreRow], base: list[ScoreRow], skills: list[str]
    ) -> dict[str, Any]:
        def paired(rows: list[ScoreRow], base: list[ScoreRow]) -> dict[str, Any]:
            options = self._options(base)
            both = by_seed(rows), by_seed(base)
            return paired_difference(*both, self.statistic, **options).as_dict()

        return {
            "estimate": paired(rows, base),
            "p": permutation_test(by_seed(rows), by_seed(base)),
            "by_skill": {skill: paired(_only(skill, rows), _only(skill, base)) for skill in skills},
        }

    def _options(self, rows: list[ScoreRow]) -> dict[str, Any]:
        return {
            "level": self.level,
            "resamples": self.resamples,
            "shared_items": shared_items(rows),
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


def _keys(rows: list[ScoreRow], name: str) -> set[tuple[int, str]]:
    keys: set[tuple[int, str]] = set()
    for row in rows:
        key = (row["seed"], row["item"])
        if key in keys:
            raise DataError(
                f"a question of {name!r} is scored twice", where=f"seed {key[0]}, item {key[1]}"
            )
        keys.add(key)
    return keys


def _same_questions(
    base: list[ScoreRow], arm: list[ScoreRow], base_name: str, arm_name: str
) -> None:
    in_base, in_arm = _keys(base, base_name), _keys(arm, arm_name)
    for missing, absent in ((in_base - in_arm, arm_name), (in_arm - in_base, base_name)):
        if missing:
            seed, item = min(missing)
            raise DataError(
                f"{absent!r} has no score for {len(missing)} of the questions",
                where=f"the first is seed {seed}, item {item}",
                fix="score both with the same exam settings and the same test seeds",
            )


def _only(skill: str, rows: list[ScoreRow]) -> list[ScoreRow]:
    return [row for row in rows if row["skill"] == skill]


def _chance(skills: list[str]) -> dict[str, float]:
    """The score of blind answers, where the almanac knows it."""
    from tilth.almanac.skills import SKILLS

    return {skill: SKILLS[skill].chance for skill in skills if skill in SKILLS}
