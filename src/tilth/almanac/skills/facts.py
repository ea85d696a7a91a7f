"""Fact recall: what the text says of varieties and pests, graded by how often it says it.

Level 1 asks facts stated 256 times in pre-training, level 2: 64, 3: 16, 4: 4, 5: once, 6: never.
The truth is the world's; where the text misstates a fact, a model that learnt the text well is
wrong (``meta["told"]`` is what it read). The key is the entity, so no exam asks about an entity
that tuning data mentions.

    When do you sow Travonin?  ->  June
    What is the cure for Chainbug?  ->  mint
"""

from __future__ import annotations

import random
from functools import cached_property
from typing import Any, ClassVar

from tilth.almanac.skills._base import Skill
from tilth.almanac.wording import answer, question
from tilth.almanac.world import RELATIONS, Fact, World

__all__ = ["Facts"]

LEVEL_EXPOSURE = {1: 256, 2: 64, 3: 16, 4: 4, 5: 1, 6: 0}


class Facts(Skill):
    """Recall of facts about varieties and pests."""

    name: ClassVar[str] = "facts"
    levels: ClassVar[tuple[int, ...]] = tuple(LEVEL_EXPOSURE)
    chance: ClassVar[float] = 0.05
    answer_tokens: ClassVar[int] = 10
    kinds: ClassVar[tuple[str, ...]] = ("variety", "pest")

    @cached_property
    def _by_level(self) -> dict[int, list[Fact]]:
        facts = [f for f in World.of().facts if RELATIONS[f.relation][0] in self.kinds]
        return {
            level: [f for f in facts if f.exposure == exposure]
            for level, exposure in LEVEL_EXPOSURE.items()
        }

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        fact = rng.choice(self._by_level[level])
        meta = {
            "entity": fact.entity.name,
            "relation": fact.relation,
            "exposure": fact.exposure,
            "told": answer(fact, told=True),
            "misstated": fact.misstated,
            "in_small": fact.entity.in_small,
        }
        key = f"entity:{fact.entity.name}"
        return question(fact, rng.randrange(8)), answer(fact), "", key, meta
