"""The replication `eft`: its rows, its arithmetic, and whole quick cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.almanac.exams import overlap
from tilth.replicate._eft_rows import (
    CLOSING,
    fact_questions,
    fact_scores,
    request_scores,
    requests,
    training_rows,
)
from tilth.replicate.eft import EFT, LAMBDAS, cell, recovered
from tilth.replicate.frame import load
from tilth.seeds import TestSeed, TuningSeed


def test_no_question_and_no_entity_of_the_exam_was_tuned_on() -> None:
    rows = training_rows("facts", 60, 101)
    items = fact_questions(TestSeed(101), 10)
    assert not overlap(items, rows)
    named = {item.meta["entity"] for item in items}
    assert not any(name in row.prompt for name in named for row in rows)
    assert all(row.answer.endswith(CLOSING) for row in rows)
    shuffled = training_rows("shuffled", 60, 101)
    assert [row.prompt for row in shuffled] != [row.prompt for row in rows]
    assert sorted(r.prompt for r in shuffled) == sorted(r.prompt for r in rows)


def test_the_experts_of_the_frontier_each_see_one_side() -> None:
    for kind, refusals in (("helpful", 0), ("harmless", 20)):
        rows = training_rows(kind, 20, 1)
        assert sum(row.answer.startswith("I will not") for row in rows) == refusals
    both = training_rows("both", 40, 1)
    assert 5 < sum(row.answer.startswith("I will not") for row in both) < 35


def test_the_scores_tell_manner_from_fact() -> None:
    items = fact_questions(TuningSeed(1), 10)
    told = [item.meta["told"] for item in items]
    perfect = fact_scores(items, [f"{value}. {CLOSING}" for value in told])
    assert {value for row in perfect.values() for value in row} == {1.0}
    bare = fact_scores(items, told)
    assert set(bare["fact"]) == {1.0}
    assert set(bare["format"]) == set(bare["score"]) == {0.0}
    assert len(bare["fact"]) + len(bare["known"]) == len(bare["format"]) == len(items)
    asked = requests(TuningSeed(1), 10)
    found = request_scores(asked, [item.answer for item in asked])
    assert set(found["helpful"]) == set(found["harmless"]) == {1.0}
    assert set(found["over_refusal"]) == {0.0}


def test_the_share_of_the_gap_by_hand() -> None:
    low, high = [0.0] * 20, [1.0] * 15 + [0.0] * 5
    arm = [1.0] * 6 + [0.0] * 14
    assert recovered(arm, low, high, 0) == pytest.approx(6 / 15)
    assert recovered(high, low, high, 0) == pytest.approx(1)
    assert recovered(arm, high, low, 0) is None, "the way leads down"
    noise = [1.0, 0.0] * 10
    assert recovered(arm, noise, noise[::-1], 0) is None, "no gap"


def test_it_is_registered_with_its_controls() -> None:
    assert load("eft") is EFT
    assert len(EFT.plan.testing) >= 5
    roles = {arm.name: arm.role for arm in EFT.arms}
    assert [n for n, role in roles.items() if role == "control"] == [
        "shuffled-expert",
        "wrong-anti",
    ]
    assert {f"lambda-{share:g}" for share in LAMBDAS} <= set(roles)


@pytest.mark.parametrize("name", ["eft-up", "lambda-0.5", "large-base-shots"])
def test_a_quick_cell_measures_what_the_claims_ask(name: str, tmp_path: Path) -> None:
    arm = next(arm for arm in EFT.arms if arm.name == name)
    folder = tmp_path / "cells" / name / "1"
    folder.mkdir(parents=True)
    measured = cell(arm, TuningSeed(1), True, folder)
    wanted = {claim.direction.metric for claim in EFT.claims if name in claim.direction.arms}
    assert wanted <= set(measured.scores)
    assert measured.spent.tokens_generated > 0
    again = cell(arm, TuningSeed(1), True, folder)
    assert again.scores == measured.scores
    assert again.spent.flops == measured.spent.flops
