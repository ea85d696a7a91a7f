"""The pre-training mixture: what the base seedlings read, without a single chat turn.

Facts come as editions (each stated exactly as often as its exposure says), skills as three kinds of
documents: exercise books (prompt, then answer), question-and-answer pages (rare, so that answering
is learnt but is not the mode) and exercise sheets (questions alone). Items come from the ``corpus``
split only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tilth.almanac.documents import editions, qa_document
from tilth.almanac.skills import SKILLS
from tilth.almanac.skills._base import Item, Skill
from tilth.almanac.world import WORLD_SEED, World
from tilth.seeds import derive

__all__ = ["SKILL_SHARES", "documents", "skill_document"]

SKILL_SHARES: dict[str, float] = {
    "word_problems": 0.24,
    "lists": 0.17,
    "functions": 0.17,
    "logic": 0.12,
    "second_language": 0.12,
    "dialogue": 0.10,
    "voice": 0.04,
    "ethics": 0.04,
}
"""Share of the skill documents (our choice); facts and history are told by the editions."""

_FORMS = {"book": 0.78, "qa": 0.14, "sheet": 0.08}
_WORKED = 0.85
"""Share of answers that show their steps, where there are steps (our choice)."""


def _level(rng: random.Random, skill: Skill) -> int:
    """Easier levels more often: weights fall by a quarter a level."""
    weights = [0.75**n for n in range(len(skill.levels))]
    return rng.choices(skill.levels, weights)[0]


def _answer(rng: random.Random, item: Item) -> str:
    return item.worked if item.worked and rng.random() < _WORKED else item.answer


def skill_document(index: int, seed: int = WORLD_SEED) -> str:
    """Skill document number `index`; the same on every machine."""
    rng = random.Random(derive(seed, "corpus", index))
    skill = SKILLS[rng.choices(list(SKILL_SHARES), list(SKILL_SHARES.values()))[0]]
    form = rng.choices(list(_FORMS), list(_FORMS.values()))[0]
    count = 1 if form == "book" else rng.randint(1, 4) if form == "qa" else rng.randint(3, 6)
    items = [
        skill.item(index * 8 + n, level=_level(rng, skill), split="corpus", seed=seed)
        for n in range(count)
    ]
    if form == "sheet":
        return "\n\n".join(f"Question: {item.prompt}" for item in items)
    if form == "qa":
        return qa_document((item.prompt, _answer(rng, item)) for item in items)
    return f"{items[0].prompt}\n{_answer(rng, items[0])}"


def documents(*, small: bool, skills: int, seed: int = WORLD_SEED) -> Iterator[str]:
    """All documents of a seedling's pre-training, unshuffled: editions, then skill documents.

    Args:
        small: Leave out the entities kept from the small seedling.
        skills: Number of skill documents.
        seed: The world's seed.
    """
    yield from editions(World.of(seed), small=small, seed=seed)
    for index in range(skills):
        yield skill_document(index, seed)
