"""Pools with a known truth: quality, duplicates, corruption and noise on demand.

Selection studies need to know what a row is worth. Every row that this module makes says so in its
``meta``: ``quality`` (``worked``: right with steps, ``bare``: right, ``wrong``: a corrupted answer,
``noise``: long text that teaches nothing), ``duplicate_of``, ``skill``, ``level``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping

from tilth.almanac.skills import SKILLS
from tilth.almanac.skills._base import Item, Split, normal
from tilth.data.example import Example
from tilth.seeds import derive

__all__ = ["QUALITIES", "corrupt", "near_duplicate", "noise", "pool"]

QUALITIES: dict[str, float] = {"worked": 0.4, "bare": 0.3, "wrong": 0.3}
"""Share of each response quality (our choice: thirds, rounded in favour of good rows)."""

_FILLERS = (
    "The wind turned at noon and nobody minded.",
    "Somebody left the gate open again.",
    "It rained, and then it did not rain.",
    "The old cart stood where it always stands.",
    "There was talk of this and that, and of that and this.",
    "Nobody could say why the bell had rung.",
    "The dog slept by the door all day.",
    "They spoke for a long time and agreed on nothing.",
)


def corrupt(item: Item, rng: random.Random) -> str:
    """A wrong answer in the form of a right one: another item's answer, or a changed number.

    Only a text that the item's own verifier rejects is returned.
    """
    text = item.worked or item.answer
    skill = SKILLS[item.skill]
    for _ in range(50):
        numbers = list(re.finditer(r"\d+", text))
        if numbers and rng.random() < 0.8:
            last = numbers[-1]
            wrong = max(0, int(last.group()) + rng.choice([-3, -2, -1, 1, 2, 3]))
            candidate = f"{text[: last.start()]}{wrong}{text[last.end() :]}"
        else:
            other = skill.item(rng.randrange(10**6), level=item.level, split="train")
            candidate = other.worked or other.answer
        if normal(candidate) != normal(text) and skill.verify(item, candidate) < 0.5:
            return candidate
    return "I do not know."


def near_duplicate(example: Example, rng: random.Random) -> Example:
    """The same row, reworded a little; ``meta["duplicate_of"]`` names the original."""
    openings = ("Please: ", "Now, ", "Tell me. ", "Here is one. ", "Well, ", "So. ", "Think. ")
    prompt = rng.choice(openings) + example.prompt
    if rng.random() < 0.5:
        prompt = f"{prompt} {rng.choice(('Thank you.', 'Take care.', 'Be quick.', 'Go on.'))}"
    meta = {**example.meta, "duplicate_of": example.id}
    return Example.pair(prompt, example.answer, **meta)


def noise(rng: random.Random, sentences: int = 12) -> Example:
    """A long row that teaches nothing: an idle request and idle talk."""
    talk = " ".join(rng.choice(_FILLERS) for _ in range(sentences))
    prompt = f"Write about the day. {rng.choice(_FILLERS)}"
    return Example.pair(prompt, talk, method="almanac", skill="noise", level=0, quality="noise")


def pool(
    count: int,
    shares: Mapping[str, float] | None = None,
    *,
    split: Split = "train",
    qualities: Mapping[str, float] | None = None,
    duplicates: float = 0.0,
    noisy: float = 0.0,
    seed: int = 0,
) -> Iterator[Example]:
    """`count` rows with known truth, in random order; row n is the same whatever `count` is.

    Args:
        count: Rows.
        shares: Skill -> weight; all skills alike where it is None.
        split: The split whose items are used.
        qualities: Quality -> weight, see :data:`QUALITIES`.
        duplicates: Share of rows that nearly repeat an earlier row, 0 to 1.
        noisy: Share of rows that are long noise, 0 to 1.
        seed: Names the pool.
    """
    shares = shares or dict.fromkeys(SKILLS, 1.0)
    qualities = qualities or QUALITIES
    for index in range(count):
        rng = random.Random(derive(seed, "pool", index))
        draw = rng.random()
        if draw < noisy:
            yield noise(rng)
        elif draw < noisy + duplicates and index:
            # The original may itself be a noise row or a duplicate's place: take its plain item.
            original = _row(rng.randrange(index), shares, qualities, split, seed)
            yield near_duplicate(original, rng)
        else:
            yield _row(index, shares, qualities, split, seed)


def _row(
    index: int,
    shares: Mapping[str, float],
    qualities: Mapping[str, float],
    split: Split,
    seed: int,
) -> Example:
    rng = random.Random(derive(seed, "pool", "row", index))
    skill = SKILLS[rng.choices(list(shares), list(shares.values()))[0]]
    item = skill.item(index, level=rng.choice(skill.levels), split=split, seed=seed)
    quality = rng.choices(list(qualities), list(qualities.values()))[0]
    if quality == "worked" and not item.worked:
        quality = "bare"
    answer = {"worked": item.worked, "bare": item.answer}.get(quality) or corrupt(item, rng)
    return Example.pair(
        item.prompt,
        answer,
        method="almanac",
        skill=item.skill,
        level=item.level,
        item=item.id,
        quality=quality,
    )
