"""The cells of implicit tuning: what each arm is made of, and a whole quick cell of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.almanac.field_plan import field_plan
from tilth.almanac.skills import SKILLS
from tilth.decode.rules import read_rules, resolve_rules
from tilth.models import load_tokenizer
from tilth.replicate import load
from tilth.replicate._implicit_parts import (
    OTHERS,
    SINGLES,
    TAG_TOKENS,
    questions,
    rule_file,
    training_rows,
)
from tilth.replicate.implicit_tuning import BASE, IMPLICIT_TUNING, cell
from tilth.seeds import TestSeed, TuningSeed

ARMS = {arm.name: arm for arm in IMPLICIT_TUNING.arms}


def test_it_is_registered_with_five_test_seeds_and_its_controls() -> None:
    assert load("implicit-tuning") is IMPLICIT_TUNING
    assert len(IMPLICIT_TUNING.plan.testing) >= 5
    controls = {arm.name for arm in IMPLICIT_TUNING.arms if arm.role == "control"}
    assert {"shuffled", "field-plan", "rules-random", "penalty"} <= controls
    judged = {arm for claim in IMPLICIT_TUNING.claims for arm in claim.direction.arms}
    assert set(ARMS) - judged == {"base-shots"}, "it tells a result of tuning from one of form"


def test_single_tasks_and_judged_families_are_apart() -> None:
    assert not set(SINGLES) & set(OTHERS)
    for name in SINGLES:
        assert {row.meta["skill"] for row in training_rows(name, 20, 1)} == {name}
    rest = {row.meta["skill"] for row in training_rows("others-left-out", 200, 1)}
    assert rest == set(SKILLS) - set(OTHERS)
    asked = {item.skill for item in questions(TuningSeed(1), 2)}
    assert asked == set(OTHERS)


def test_no_question_is_among_the_training_rows() -> None:
    seen = {row.prompt for row in training_rows("all", 480, 101)}
    assert not seen & {item.prompt for item in questions(TestSeed(101), 6)}


def test_shuffled_rows_have_other_rows_instructions() -> None:
    rows, mixed = training_rows("all", 60, 3), training_rows("shuffled", 60, 3)
    assert [row.answer for row in mixed] == [row.answer for row in rows]
    assert all(a.prompt != b.prompt for a, b in zip(rows, mixed, strict=True))


def test_the_dull_task_begins_alike_whatever_is_asked() -> None:
    rows = [field_plan(n, 1) for n in range(50)]
    assert len({row.prompt for row in rows}) > 45
    opening = "1. plough plough 2. harrow harrow 3. sow sow 4. roll "
    assert all(row.answer.startswith(opening) for row in rows)
    assert len({row.answer for row in rows}) > 10
    assert field_plan(7, 1) == rows[7]


def test_rule_two_and_its_control_have_fifteen_tokens_of_one_weight(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(BASE)
    found = {}
    for rule in ("bias", "random"):
        path = rule_file(tmp_path / f"{rule}.yaml", ("eos", rule, "seen"), BASE, 1)
        resolved = resolve_rules(read_rules(path), tokenizer, [0], strict=True)
        found[rule] = [(r.token, r.weight) for r in resolved.rows if r.kind == "token_bias"]
    assert len({token for token, _ in found["bias"]}) == len(TAG_TOKENS) == 15
    assert len({token for token, _ in found["random"]}) == 15
    assert {weight for rows in found.values() for _, weight in rows} == {-6.0}


@pytest.mark.parametrize("name", ["base", "response", "rules", "penalty"])
def test_a_quick_cell(name: str, tmp_path: Path) -> None:
    measured = cell(ARMS[name], TuningSeed(1), True, tmp_path)
    scores = measured.scores
    items = len(scores["score"])  # type: ignore[arg-type]
    assert items == len(questions(TuningSeed(1), 1))
    for metric in ("ended", "restarts", "echoes", "tokens"):
        assert len(scores[metric]) == items  # type: ignore[arg-type]
    assert ("ranking" in scores) == (name in ("base", "response"))
    assert (measured.spent.tokens_trained > 0) == (name == "response")
    if name == "base":
        # It echoes the tag that it is given; the measure of the phenomenon that tuning removes.
        assert sum(scores["echoes"]) > items / 2  # type: ignore[arg-type]
        assert sum(scores["ranking"]) / len(scores["ranking"]) > 0.6  # type: ignore[arg-type]
