"""Verdicts of claims from the intervals of paired differences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.errors import DataError, RecipeError
from tilth.replicate import Claim, Greater, Monotone, Within, judge
from tilth.replicate.claims import Finding, Table
from tilth.seeds import stream

SEEDS = [11, 12, 13, 14]


def table(**means: float) -> Table:
    """Scores of 50 items per seed with a common part per item and a little noise per arm."""
    made: dict[str, dict[int, list[float]]] = {}
    for arm, mean in means.items():
        for seed in SEEDS:
            item = stream(seed, "items").normal(0, 0.3, 50)
            noise = stream(seed, "noise", arm).normal(0, 0.05, 50)
            made.setdefault(arm, {})[seed] = (mean + item + noise).tolist()
    return made


def finding(direction: Greater | Within | Monotone, scores: Table) -> Finding:
    return judge(Claim("farm", "it holds", direction), scores, SEEDS, resamples=500)


def verdict(direction: Greater | Within | Monotone, scores: Table) -> str:
    return finding(direction, scores).verdict


def test_greater_has_all_three_verdicts() -> None:
    scores = table(a=0.6, b=0.5, same=0.5)
    assert verdict(Greater("a", "b"), scores) == "reproduced"
    assert verdict(Greater("b", "a"), scores) == "contradicted"
    assert verdict(Greater("same", "b"), scores) == "not shown"


def test_a_margin_must_be_cleared_by_the_whole_interval() -> None:
    scores = table(a=0.6, b=0.5)
    assert verdict(Greater("a", "b", by=0.05), scores) == "reproduced"
    assert verdict(Greater("a", "b", by=0.1), scores) == "not shown"
    assert verdict(Greater("a", "b", by=0.2), scores) == "contradicted"
    assert verdict(Greater("b", "a", by=-0.2), scores) == "reproduced"  # not much worse


def test_within_is_equivalence_and_not_the_absence_of_a_difference() -> None:
    scores = table(a=0.51, b=0.5, far=0.9)
    assert verdict(Within("a", "b", 0.05), scores) == "reproduced"
    assert verdict(Within("a", "b", 0.012), scores) == "not shown"
    assert verdict(Within("far", "b", 0.1), scores) == "contradicted"
    assert verdict(Within("b", "far", 0.1), scores) == "contradicted"


def test_monotone_needs_every_step() -> None:
    scores = table(one=0.1, two=0.2, three=0.3, low=0.0, same=0.3)
    assert verdict(Monotone(("one", "two", "three")), scores) == "reproduced"
    assert verdict(Monotone(("three", "two", "one"), rising=False), scores) == "reproduced"
    assert verdict(Monotone(("one", "two", "low")), scores) == "contradicted"
    assert verdict(Monotone(("one", "three", "same")), scores) == "not shown"
    assert verdict(Monotone(("one", "three", "same"), slack=0.05), scores) == "reproduced"


def test_the_weakest_step_is_reported() -> None:
    found = finding(Monotone(("one", "two", "three")), table(one=0.1, two=0.15, three=0.9))
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.05, abs=0.02)
    assert [(a, b) for a, b, _ in found.steps] == [("two", "one"), ("three", "two")]


def test_a_missing_cell_leaves_the_claim_open_and_is_named() -> None:
    scores = {arm: dict(rows) for arm, rows in table(a=0.9, b=0.1).items()}
    del scores["a"][13]
    found = finding(Greater("a", "b"), scores)
    assert found.verdict == "not shown"
    assert "a/13" in found.why
    assert found.estimate is not None
    assert found.estimate.seeds == 3


def test_an_arm_without_any_scores_has_no_estimate() -> None:
    found = finding(Greater("a", "b"), table(b=0.1))
    assert (found.verdict, found.estimate) == ("not shown", None)


def test_one_score_per_seed_is_enough() -> None:
    scores = {"a": {s: [0.5 + s / 1000] for s in SEEDS}, "b": {s: [0.4] for s in SEEDS}}
    assert verdict(Greater("a", "b"), scores) == "reproduced"


def test_different_numbers_of_items_are_an_error() -> None:
    scores = table(a=0.9, b=0.1)
    scores["a"][11].pop()  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="items"):
        finding(Greater("a", "b"), scores)


def test_senseless_directions_are_refused() -> None:
    with pytest.raises(RecipeError, match="above 0"):
        Within("a", "b", 0.0)
    with pytest.raises(RecipeError, match="two levels"):
        Monotone(("a",))


@settings(max_examples=25, deadline=None)
@given(st.floats(-1, 1), st.floats(-0.5, 0.5))
def test_a_claim_and_its_opposite_are_never_both_reproduced(gap: float, margin: float) -> None:
    scores = table(a=gap, b=0.0)
    there = verdict(Greater("a", "b", by=margin), scores)
    back = verdict(Greater("b", "a", by=-margin), scores)
    assert {there, back} in ({"reproduced", "contradicted"}, {"not shown"})
