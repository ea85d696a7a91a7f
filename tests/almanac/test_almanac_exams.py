"""Exams, pools, lessons, corpus: disjoint by construction, known truth, the same everywhere."""

import random

import pytest

from tilth.almanac.corpus import skill_document
from tilth.almanac.exams import exam, overlap, shots
from tilth.almanac.pool import QUALITIES, corrupt, near_duplicate, pool
from tilth.almanac.skills import SKILLS, split_of
from tilth.almanac.teaching import RATINGS, SHARES, TASKS, lesson, turn
from tilth.data import decontaminate
from tilth.errors import RecipeError, SeedError
from tilth.seeds import Seed, TestSeed, TuningSeed


def test_there_are_ten_skills_with_levels_and_a_chance_level():
    assert len(SKILLS) == 10
    for skill in SKILLS.values():
        assert len(skill.levels) >= 3
        assert 0 <= skill.chance < 1


def test_the_type_of_the_seed_decides_the_split():
    assert {i.id.split("/")[2] for i in exam(None, 1, TestSeed(5))} == {"testing"}
    assert {i.id.split("/")[2] for i in exam(None, 1, TuningSeed(5))} == {"tuning"}
    for plain in (5, Seed(5)):
        with pytest.raises(SeedError, match="tunes or tests"):
            exam(None, 1, plain)


def test_an_exam_is_reproducible_balanced_and_without_repeats():
    items = exam(["logic", "lists"], 7, TestSeed(1))
    assert items == exam(["logic", "lists"], 7, TestSeed(1))
    assert items != exam(["logic", "lists"], 7, TestSeed(2))
    assert len(items) == 7 * 6
    assert len({i.prompt for i in items}) == len(items)
    assert {i.level for i in exam(["word_problems"], 2, TestSeed(1), levels=[2, 3])} == {2, 3}
    with pytest.raises(RecipeError, match="no skill 'logc'") as error:
        exam(["logc"], 1, TestSeed(1))
    assert "logic" in error.value.fix


def test_no_training_text_holds_an_exam_question():
    """By construction (keys) and on the actual rows (words), in pool, lessons and corpus."""
    items = [i for seed in (1, 2) for i in exam(None, 8, TestSeed(seed))]
    assert all(split_of(i.key) == "testing" for i in items)
    rows = [*pool(600, seed=3), *(lesson(n) for n in range(600))]
    assert overlap(items, rows) == []
    corpus = "\n".join(skill_document(n) for n in range(2000))
    assert not [i for i in items if i.prompt in corpus]


def test_decontamination_finds_a_planted_question_and_nothing_else():
    items = exam(["word_problems"], 10, TestSeed(4), levels=[4, 5, 6])
    rows = list(pool(100, {"word_problems": 1.0}, seed=9))
    planted = items[3].example()
    result = decontaminate([*rows, planted], {i.id: i.prompt for i in items}, common=10**6)
    assert all(n == 100 for n in range(101) if n not in result.kept)
    assert 100 not in result.kept
    assert overlap(items, [planted]) == [(items[3].id, planted.id)]


def test_shots_come_from_the_train_split():
    assert all(i.id.split("/")[2] == "train" for i in shots("logic", 2, 4))


def test_a_pool_says_the_truth_about_its_rows():
    rows = list(pool(800, seed=1, noisy=0.1, duplicates=0.3))
    assert [r.id for r in rows[:50]] == [r.id for r in pool(50, seed=1, noisy=0.1, duplicates=0.3)]
    kinds = [r.meta["quality"] for r in rows]
    assert kinds.count("noise") / len(rows) == pytest.approx(0.1, abs=0.04)
    copies = [r for r in rows if "duplicate_of" in r.meta]
    assert len(copies) / len(rows) == pytest.approx(0.3, abs=0.06)
    assert set(kinds) - {"noise"} <= set(QUALITIES)


def test_wrong_rows_are_wrong_and_right_rows_are_right():
    for row in pool(200, {"word_problems": 1, "lists": 1, "logic": 1}, seed=2):
        skill, level, split, seed, index = row.meta["item"].split("/")
        item = SKILLS[skill].item(int(index), level=int(level), split=split, seed=int(seed))
        assert SKILLS[skill].verify(item, row.answer) == float(row.meta["quality"] != "wrong")


@pytest.mark.parametrize("name", list(SKILLS))
def test_a_corrupted_answer_is_rejected_by_the_skills_own_verifier(name):
    skill = SKILLS[name]
    item = skill.item(3, level=skill.levels[0], split="train")
    wrong = corrupt(item, random.Random(0))
    assert skill.verify(item, item.answer) == 1.0
    assert skill.verify(item, wrong) < 0.5


def test_a_near_duplicate_names_its_original():
    row = next(iter(pool(1, seed=5)))
    copy = near_duplicate(row, random.Random(1))
    assert copy.meta["duplicate_of"] == row.id
    assert copy.answer == row.answer
    assert row.prompt in copy.prompt


def test_lessons_are_reproducible_and_cover_every_task():
    assert set(SHARES) == set(TASKS)
    assert sum(SHARES.values()) == pytest.approx(1.0)
    for task in TASKS:
        first = lesson(7, task)
        assert first == lesson(7, task)
        assert first.answer.strip()
        assert first.meta["task"] == task


def test_rating_lessons_use_the_whole_scale_of_their_truth():
    given = {lesson(n, "rate_reply").answer for n in range(200)}
    assert given == {str(r) for r in RATINGS.values()}
    assert {lesson(n, "rate_task").answer for n in range(200)} <= set("123456")


def test_a_turn_names_what_is_missing():
    assert turn("explain", task="Add.") == "Explain step by step: Add."
    with pytest.raises(RecipeError, match="no teaching turn 'wirte'"):
        turn("wirte")
    with pytest.raises(RecipeError, match="needs the field 'task'"):
        turn("explain")
