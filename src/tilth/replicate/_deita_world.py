"""The world of the Deita replication: a redundant pool whose truth is known, and simulated judges.

Truth is a number from 1 to 6 for complexity (where the level lies among its skill's levels) and for
quality (:data:`tilth.almanac.teaching.RATINGS`). A judge sees the truth through noise. Where it
compares six variants side by side it uses the whole scale; where it sees one at a time it is
generous and no score is above 8 of 10, as in table 8 of the paper (8, 8, 8, 8 against 2, 3, 4, 5).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tilth.almanac import pool as almanac_pool
from tilth.almanac.skills import SKILLS, Item
from tilth.almanac.teaching import RATINGS
from tilth.data import write_rows
from tilth.data.example import Example
from tilth.data.rating import Aspect, rating_prompt
from tilth.seeds import Seed, derive

__all__ = ["PARTS", "Judge", "groups", "truth", "write_pool"]

PARTS = ("word_problems", "lists", "logic", "second_language", "voice", "dialogue")
"""The skills of pool and exam: those with steps to show or forms to keep, and without a sandbox."""

Judge = Literal["together", "alone"]

VARIANTS = 6
NOISE = 0.5  # standard deviation of a judge, and of the oracle, on the scale of 1 to 6
_KINDS = ("worked", "bare", "padded", "other")
_PADDING = "And so it is, as everybody says, and nobody doubts it."
_QUALITIES = {"worked": 1 / 3, "bare": 1 / 3, "wrong": 1 / 3}


def truth(meta: Mapping[str, Any]) -> dict[Aspect, float]:
    """Complexity and quality of a row of the pool, 1 to 6."""
    return {
        "complexity": _hardness(meta["skill"], meta["level"]),
        "quality": float(RATINGS[meta["quality"]]),
    }


def _hardness(skill: str, level: int) -> float:
    return 1 + 5 * (level - 1) / (len(SKILLS[skill].levels) - 1)


def write_pool(path: Path, seed: Seed, rows: int, duplicates: float) -> None:
    """A pool in thirds of worked, bare and corrupted answers; its rows carry a noisy oracle.

    A corrupted row has the answer to a task of another skill.

    Args:
        path: The file.
        seed: Names the pool and the oracle's noise.
        rows: Rows.
        duplicates: Share of rows that repeat another one but for an opening or a closing.
    """
    shares = dict.fromkeys(PARTS, 1.0)
    drawn = almanac_pool.pool(
        rows,
        shares,
        qualities=_QUALITIES,
        duplicates=duplicates,
        seed=seed.derive("pool"),
    )
    noise = seed.stream("oracle").normal(0, NOISE, (rows, 2)).tolist()
    write_rows(path, (_noted(row, seed, n) for row, n in zip(drawn, noise, strict=True)))


def _noted(row: Example, seed: Seed, noise: list[float]) -> Example:
    meta = dict(row.meta)
    answer = row.answer
    if meta["quality"] == "wrong":
        # By the item, so that a row and its near-duplicate are corrupted alike.
        rng = random.Random(seed.derive("corrupt", str(meta["item"])))
        meta["quality"], answer = "other", _foreign(meta["skill"], rng)
    true = truth(meta)
    meta["complexity_scores"] = [true["complexity"] + noise[0]]
    meta["quality_scores"] = [max(0.1, true["quality"] + noise[1])]
    return Example.pair(row.prompt, answer, **meta)


def _foreign(skill: str, rng: random.Random) -> str:
    """The answer to a task of another skill."""
    other = SKILLS[rng.choice([name for name in PARTS if name != skill])]
    level = rng.choice(other.levels)
    item = other.item(rng.randrange(10**6), level=level, split="train")
    return item.worked if item.worked and rng.random() < 0.5 else item.answer


def groups(aspect: Aspect, judge: Judge, count: int, seed: Seed) -> Iterator[Example]:
    """The scorer's data: `count` groups of six variants, each with the judge's digit.

    The variants are the world's own, from another split than pool and exams: tasks of one skill at
    drawn levels, or replies of drawn quality to one task. Both judges see the same variants.
    """
    for number in range(count):
        rng = random.Random(seed.derive("group", aspect, number))
        skill = SKILLS[PARTS[number % len(PARTS)]]
        for variant in range(VARIANTS):
            base = derive(seed.value, "variant", number, variant if aspect == "complexity" else 0)
            level = rng.choice(skill.levels)
            item = skill.item(base % 10**9, level=level, split="validation")
            if aspect == "complexity":
                reply, true = "", _hardness(skill.name, level)
            else:
                kind = rng.choice([k for k in _KINDS if k != "worked" or item.worked])
                reply, true = _reply(kind, item, rng), float(RATINGS[kind])
            digit = _digit(true + rng.gauss(0, NOISE), judge)
            yield Example.pair(
                rating_prompt(aspect, item.prompt, reply), digit, group=number, truth=true
            )


def _reply(kind: str, item: Item, rng: random.Random) -> str:
    if kind == "other":
        return _foreign(item.skill, rng)
    made = {"worked": item.worked, "bare": item.answer, "padded": f"{item.answer} {_PADDING}"}
    return made[kind]


def _digit(seen: float, judge: Judge) -> str:
    """The score that the judge writes, 1 to 6; of one alone by a scale that ends at 8 of 10."""
    if judge == "alone":
        seen = min(8.0, 4 + 0.9 * seen) * 0.6
    return str(min(6, max(1, round(seen))))
