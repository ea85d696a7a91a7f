"""The page of seeds of the quickstart is what the almanac says, and nothing of an exam.

Run this file to write the page again: ``python tests/generate/test_seed_page.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

from tilth.almanac.exams import exam, overlap
from tilth.almanac.skills import SKILLS
from tilth.data import read
from tilth.seeds import TestSeed

PAGE = Path(__file__).parents[2] / "recipes" / "seeds.jsonl"


def page() -> list[dict[str, str | int]]:
    """Four seeds per skill, easiest first, from the split that tuning may see."""
    items = [
        skill.item(n, level=skill.levels[n % len(skill.levels)], split="train")
        for skill in SKILLS.values()
        for n in range(4)
    ]
    return [
        {
            "prompt": item.prompt,
            "completion": item.worked or item.answer,
            "skill": item.skill,
            "level": item.level,
        }
        for item in items
    ]


def test_the_page_is_the_almanacs() -> None:
    assert [json.loads(line) for line in PAGE.read_text("utf-8").splitlines()] == page()


def test_the_page_shares_no_question_with_an_exam() -> None:
    rows = read(PAGE)
    assert len(rows) == 4 * len(SKILLS)
    for seed in (101, 102, 103, 104, 105):
        assert overlap(exam(None, 2, TestSeed(seed)), rows) == []


if __name__ == "__main__":
    lines = (json.dumps(row, ensure_ascii=False) for row in page())
    PAGE.write_text("".join(f"{line}\n" for line in lines), "utf-8")
