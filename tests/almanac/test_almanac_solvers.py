"""Word problems and list work: reading questions back, making them harder, spoiling them."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.almanac.skills import SKILLS, SPLITS, Item, Split, split_of
from tilth.almanac.skills import lists as lists_skill
from tilth.almanac.skills import word_problems as stories
from tilth.almanac.skills._words import GROUPS


def drawn(name: str, level: int, count: int = 60) -> list[Item]:
    return [SKILLS[name].item(i, level=level, split="train") for i in range(count)]


class TestWordProblems:
    skill = SKILLS["word_problems"]

    @given(st.integers(1, 6), st.integers(0, 10**6))
    @settings(max_examples=200, deadline=None)
    def test_questions_can_be_read_back(self, level: int, index: int) -> None:
        item = self.skill.item(index, level=level, split="train")
        assert stories.parse(item.prompt) == item.meta["story"]
        assert stories.solve(item.prompt) == int(item.answer)
        assert len(item.meta["steps"]) == level
        assert max(item.meta["values"]) <= (20 if level <= 3 else 60)

    @given(st.integers(1, 6), st.integers(0, 10**6), st.integers(0, 99))
    @settings(max_examples=200, deadline=None)
    def test_corrupt_questions_have_no_answer(self, level: int, index: int, seed: int) -> None:
        item = self.skill.item(index, level=level, split="train")
        spoilt = stories.corrupt(item, random.Random(seed))
        assert spoilt != item.prompt
        assert stories.solve(spoilt) is None

    @given(st.integers(1, 6), st.integers(0, 10**6), st.sampled_from(SPLITS))
    @settings(max_examples=150, deadline=None)
    def test_harder_adds_a_step_and_keeps_the_split(
        self, level: int, index: int, split: Split
    ) -> None:
        item = self.skill.item(index, level=level, split=split)
        longer = stories.harder(item)
        assert longer == stories.harder(item)
        assert longer.level == len(longer.meta["steps"]) > level
        assert split_of(longer.key) == split
        assert stories.solve(longer.prompt) == int(longer.answer)
        assert self.skill.verify(longer, longer.worked) == 1

    @given(st.text(max_size=200))
    def test_solve_never_raises(self, text: str) -> None:
        assert stories.solve(text) is None

    def test_worked_lines_are_true_sums(self) -> None:
        for item in drawn("word_problems", 6):
            sums = re.findall(r"(\d+) ([+*/-]) (\d+) = (\d+)\.", item.worked)
            done = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
            assert len(sums) == 6
            assert all(done[op](int(a), int(b)) == int(c) for a, op, b, c in sums)

    @pytest.mark.parametrize(
        ("text", "answer"),
        [
            ("Ada has 3 sacks. Ada buys 4 more. How many sacks are there now?", 7),
            ("Ada has 3 sacks. Ada sells 4 of them. How many sacks are there now?", None),
            ("Ada has 3 sacks. Then the number doubles. How many hens are there now?", None),
            ("Ada has 3 sacks. Then half of them are sold. How many sacks are there now?", None),
            ("Ada has 99 sacks. Ada buys 4 more. How many sacks are there now?", None),
            ("Ada has 3 sacks. How many sacks are there now?", None),
            ("Ada has 3 sacks. Ada has 3 sacks. How many sacks are there now?", None),
            ("Ada has 3 sacks. Ada sings. How many sacks are there now?", None),
        ],
    )
    def test_solve_on_written_questions(self, text: str, answer: int | None) -> None:
        assert stories.solve(text) == answer

    def test_the_last_number_counts(self) -> None:
        item = drawn("word_problems", 1)[0]
        assert self.skill.verify(item, f"The answer is {item.answer} sacks.") == 1
        assert self.skill.verify(item, f"{item.answer} or {int(item.answer) + 1}") == 0
        assert self.skill.verify(item, f"-{item.answer}") == float(item.answer == "0")


class TestLists:
    @given(st.integers(1, 3), st.integers(0, 10**6))
    @settings(max_examples=200, deadline=None)
    def test_questions_can_be_read_back(self, level: int, index: int) -> None:
        item = SKILLS["lists"].item(index, level=level, split="train")
        assert lists_skill.solve(item.prompt) == item.answer
        assert len(item.meta["operations"]) == level

    @given(st.text(max_size=200))
    def test_solve_never_raises(self, text: str) -> None:
        lists_skill.solve(text)

    def test_every_operation_and_use_case_occurs(self) -> None:
        found = drawn("lists", 1, 400)
        assert {i.meta["operations"][0] for i in found} == set(lists_skill.OPERATIONS)
        assert {i.meta["use_case"] for i in found} == set(lists_skill.USE_CASES)

    def test_every_wording_of_every_operation_is_read(self) -> None:
        words, rng = ("rye", "oats", "barley"), random.Random(0)
        for operation, _ in product(lists_skill.OPERATIONS, range(6)):
            asked = lists_skill.render("seed order", words, (operation,), rng)
            results = lists_skill.apply(words, (operation,))
            assert results is not None
            assert lists_skill.solve(asked) == results[-1]

    @pytest.mark.parametrize("operations", [("count", "reverse"), ("longest",), ()])
    def test_chains_without_a_result(self, operations: tuple[str, ...]) -> None:
        assert lists_skill.apply(("rye", "hop"), operations) is None

    def test_no_word_stands_in_two_groups(self) -> None:
        counted = Counter(word for group in GROUPS.values() for word in group)
        assert max(counted.values()) == 1
