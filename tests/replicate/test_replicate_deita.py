"""The Deita replication: a pool whose truth holds, judges as described, quick cells whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tilth.almanac.skills import SKILLS
from tilth.data import read
from tilth.replicate import load
from tilth.replicate._deita_world import PARTS, _digit, groups, truth, write_pool
from tilth.replicate.deita import DEITA, cell
from tilth.seeds import TestSeed, TuningSeed


def test_the_truth_of_the_pool_holds(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool.jsonl", TuningSeed(3), 300, duplicates=0.6)
    rows = list(read(tmp_path / "pool.jsonl"))
    repeats = [row for row in rows if "duplicate_of" in row.meta]
    assert 0.5 < len(repeats) / len(rows) < 0.7
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row.meta["item"], set()).add(row.answer)
        skill = SKILLS[row.meta["skill"]]
        number = int(row.meta["item"].rsplit("/", 1)[1])
        item = skill.item(
            number,
            level=row.meta["level"],
            split="train",
            seed=TuningSeed(3).derive("pool"),
        )
        assert skill.verify(item, row.answer) == (row.meta["quality"] != "other")
        assert all(1 <= value <= 6 for value in truth(row.meta).values())
    assert all(len(said) == 1 for said in answers.values()), "a repeat is corrupted as its original"
    assert set(Counter(row.meta["quality"] for row in rows)) == {"worked", "bare", "other"}
    noise = [row.meta["complexity_scores"][0] - truth(row.meta)["complexity"] for row in rows]
    assert 0.4 < np.std(noise) < 0.6


def test_both_judges_see_the_same_variants_and_one_saturates() -> None:
    together, alone = (list(groups("quality", j, 12, TestSeed(9))) for j in ("together", "alone"))
    assert [row.prompt for row in together] == [row.prompt for row in alone]
    assert len(together) == 12 * 6
    assert {_digit(seen, "alone") for seen in np.arange(1, 6.5, 0.25)} == {"3", "4", "5"}
    assert [_digit(float(seen), "together") for seen in range(1, 7)] == list("123456")
    digits = [len({row.answer for row in rows}) for rows in (together, alone)]
    assert digits[0] > digits[1]


def test_groups_are_of_one_skill_and_all_skills_have_theirs() -> None:
    rows = list(groups("complexity", "together", len(PARTS), TestSeed(9)))
    assert [row.meta["group"] for row in rows] == [n for n in range(len(PARTS)) for _ in range(6)]
    assert all(row.prompt.endswith("Complexity score:") for row in rows)


def test_it_is_registered_and_has_its_controls() -> None:
    assert load("deita") is DEITA
    assert {arm.role for arm in DEITA.arms} == {"method", "baseline", "control"}
    assert len(DEITA.plan.testing) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deita", "alone", "random", "perplexity", "oracle-plain"])
def test_a_quick_cell(tmp_path: Path, name: str) -> None:
    (arm,) = (arm for arm in DEITA.arms if arm.name == name)
    folder = tmp_path / "cells" / name
    folder.mkdir(parents=True)
    found = cell(arm, TestSeed(101), True, folder)
    assert len(found.scores["score"]) == sum(len(SKILLS[part].levels) for part in PARTS)
    assert 0 < found.scores["distinct"] <= 1
    assert ("spearman_quality" in found.scores) == (name in ("deita", "alone"))
    assert found.spent.tokens_trained > 0
