"""Exams: held-out questions per skill and level, drawn by a seed whose type decides the split.

A test seed draws from the ``testing`` split, a tuning seed from the ``tuning`` split; no other code
draws from either. Since an item's split follows from the hash of its arguments, exams are disjoint
from all training text by construction, and :func:`overlap` proves it on actual rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tilth.almanac.skills import SKILLS
from tilth.almanac.skills._base import Item, Split
from tilth.data.example import Example
from tilth.errors import RecipeError, SeedError
from tilth.seeds import Seed, TestSeed, TuningSeed

__all__ = ["exam", "overlap", "shots", "skills_named"]


def skills_named(names: Sequence[str] | None) -> list[str]:
    """The skills of those names, or all; an unknown name is an error with the nearest one."""
    from difflib import get_close_matches

    for name in names or ():
        if name not in SKILLS:
            near = get_close_matches(name, SKILLS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise RecipeError(
                f"the almanac has no skill {name!r}", "skills", f"{hint}known: {', '.join(SKILLS)}"
            )
    return list(names or SKILLS)


def exam(
    skills: Sequence[str] | None,
    per_level: int,
    seed: Seed,
    levels: Sequence[int] | None = None,
) -> list[Item]:
    """The exam that `seed` names, without repeated questions.

    Args:
        skills: Names, or None for all.
        per_level: Questions per skill and level (fewer where a level holds no more).
        seed: A :class:`TestSeed` (split ``testing``) or a :class:`TuningSeed` (split ``tuning``).
        levels: Only these levels, where a skill has them.

    Raises:
        SeedError: `seed` is a plain :class:`Seed` or an integer: its purpose is unknown.
        RecipeError: A skill does not exist.
    """
    if isinstance(seed, TestSeed):
        split: Split = "testing"
    elif isinstance(seed, TuningSeed):
        split = "tuning"
    else:
        raise SeedError(
            f"{seed!r} does not say whether it tunes or tests",
            "exam",
            "pass a TuningSeed or a TestSeed",
        )
    items: list[Item] = []
    for name in skills_named(skills):
        for level in SKILLS[name].levels:
            if levels is None or level in levels:
                items += _distinct(name, level, split, int(seed), per_level)
    return items


def _distinct(name: str, level: int, split: Split, seed: int, count: int) -> list[Item]:
    """Up to `count` items with different prompts; a small level may hold fewer."""
    chosen: dict[str, Item] = {}
    for index in range(count * 4):
        item = SKILLS[name].item(index, level=level, split=split, seed=seed)
        chosen.setdefault(item.prompt, item)
        if len(chosen) == count:
            break
    return list(chosen.values())


def shots(name: str, level: int, count: int, seed: int = 0) -> list[Item]:
    """Examples of a skill and level for few-shot prompts, from the ``train`` split."""
    skill = SKILLS[name]
    return [skill.item(n, level=level, split="train", seed=seed) for n in range(count)]


def overlap(items: Iterable[Item], rows: Iterable[Example]) -> list[tuple[str, str]]:
    """``(item id, row id)`` wherever a row holds an exam question word for word."""
    questions = {" ".join(item.prompt.lower().split()): item.id for item in items}
    return [
        (questions[text], row.id)
        for row in rows
        for message in row.messages
        if (text := " ".join(message["content"].lower().split())) in questions
    ]
