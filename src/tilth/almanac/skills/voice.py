"""Voice: speak as somebody of the farm, with that person's opening and closing words.

The form is a rule (opening, name of the listener, topic, closing) and saturates after a few
examples; the content words come from the question. Level 1 has one topic, level 2 two, level 3 also
a day. Two items::

    Speak as the miller to Ada about the barley.
        -> By the stone, Ada, I like the barley. Grind on.
    Speak as the shepherd to Ben about the rope and the well on Friday.
        -> Hush now, Ben, I like the rope and the well on Friday. Mind the flock.
"""

from __future__ import annotations

import random
import re
from typing import Any, ClassVar

from tilth.almanac.skills._base import Item, Skill, normal
from tilth.almanac.skills._words import DAYS, GROUPS, PEOPLE, PLACES

__all__ = ["VOICES", "Voice"]

VOICES: dict[str, tuple[str, str]] = {
    "miller": ("By the stone", "Grind on."),
    "shepherd": ("Hush now", "Mind the flock."),
    "baker": ("Warm bread to you", "Eat well."),
    "smith": ("Strike hard", "Keep the fire."),
    "fisher": ("Calm water", "Mend the net."),
    "gardener": ("Good soil", "Water the roots."),
    "carter": ("Hold the reins", "Roll on."),
    "beekeeper": ("Soft smoke", "Bless the hive."),
    "weaver": ("Thread by thread", "Mind the loom."),
    "thatcher": ("Dry straw", "Keep the roof."),
}
"""Role to (opening, closing)."""

_ROLES = tuple(VOICES)
_TOPICS = tuple(word for group in GROUPS.values() for word in group) + PLACES
_ASKS = (
    "Speak as the {role} to {who} about {topic}.",
    "You are the {role}. Talk to {who} about {topic}.",
    "Say something as the {role} to {who} about {topic}.",
)


class Voice(Skill):
    """Role voices; a constant answer never carries the listener and the topic."""

    name: ClassVar[str] = "voice"
    chance: ClassVar[float] = 0.0
    answer_tokens: ClassVar[int] = 40

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        """A role, a listener, and one or two topics."""
        role, who = rng.choice(_ROLES), rng.choice(PEOPLE)
        topics = rng.sample(_TOPICS, 1 if level == 1 else 2)
        topic = " and ".join(f"the {t}" for t in topics)
        when = f" on {rng.choice(DAYS)}" if level == 3 else ""
        prompt = rng.choice(_ASKS).format(role=role, who=who, topic=topic + when)
        opening, closing = VOICES[role]
        answer = f"{opening}, {who}, I like {topic}{when}. {closing}"
        must = [who, *topics, *when.split()[1:]]
        meta = {"role": role, "opening": opening, "closing": closing, "must": must}
        return prompt, answer, "", f"{role} {' '.join(must)}", meta

    def verify(self, item: Item, text: str) -> float:
        """1 where the opening, every required word and the closing stand in this order."""
        said = normal(text)
        opening, closing = normal(item.meta["opening"]), normal(item.meta["closing"])
        if not said.startswith(opening) or not said.endswith(closing):
            return 0.0
        middle = set(re.findall(r"[a-z]+", said[len(opening) : len(said) - len(closing)]))
        return float(all(word.lower() in middle for word in item.meta["must"]))
