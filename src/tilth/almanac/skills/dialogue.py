"""Dialogue: farm people agree on something and change their minds; who brings what, when, where?

Level 1 is two turns, level 2 adds people and plans that are not asked about, level 3 adds a
correction. The answer is a word or a number. Two items::

    Ada: I will bring the rope. Ben: I will bring the saw. What will Ben bring?    -> saw
    Ada: We meet on Monday. Ben: I will bring the rake. Ada: No, Monday is bad. We meet on Friday.
    When do they meet?         -> First Monday, then Friday. The answer is Friday.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

from tilth.almanac.skills._base import Item, Skill, final_answer, normal
from tilth.almanac.skills._words import COUNTED, DAYS, PEOPLE, PLACES, TOOLS

__all__ = ["Dialogue"]

_SAYS: dict[str, tuple[str, ...]] = {
    "tool": ("I will bring the {}.", "I can bring the {}.", "The {} comes with me."),
    "day": ("We meet on {}.", "Let us meet on {}.", "I am free on {}, so we meet then."),
    "place": ("The work is at the {}.", "Let us work at the {}.", "We start at the {}."),
    "count": ("I need {} {}.", "Please give me {} {}.", "I want {} {}."),
}
_CHANGES: dict[str, tuple[str, ...]] = {
    "tool": ("No, the {0} is broken. I will bring the {1}.", "Not the {0}, I will bring the {1}."),
    "day": ("No, {0} is bad. We meet on {1}.", "Not {0}, let us meet on {1}."),
    "place": ("No, the {0} is too wet. We work at the {1}.", "Not the {0}, we start at the {1}."),
    "count": ("No, {0} is wrong. I need {1} {2}.", "Not {0}, please give me {1} {2}."),
}
_ASKS: dict[str, tuple[str, ...]] = {
    "tool": ("What will {} bring?", "Which tool does {} bring?"),
    "day": ("When do they meet?", "On which day do they meet?"),
    "place": ("Where do they work?", "At which place is the work?"),
    "count": ("How many {1} does {0} need?", "How many {1} does {0} want?"),
}
_KINDS = tuple(_SAYS)
_NUMBERS = tuple(str(n) for n in range(2, 20))
_POOLS: dict[str, tuple[str, ...]] = {
    "tool": TOOLS,
    "day": DAYS,
    "place": PLACES,
    "count": _NUMBERS,
}
_PERSONAL = ("tool", "count")
_THEMES = ("tool", "tool", "tool", "count", "count", "count", "day", "place")

Slot = tuple[str, str, str, str]  # who says it, its kind, its value, the thing that is counted


def _say(rng: random.Random, slot: Slot) -> str:
    who, kind, value, thing = slot
    return f"{who}: {rng.choice(_SAYS[kind]).format(value, thing)}"


def _slots(rng: random.Random, people: list[str], count: int, theme: str) -> list[Slot]:
    """`count` different plans, most of them about `theme`, at most one per person and kind.

    A day or a place is everybody's and comes once. There are at least half as many people as
    plans, so that a person's own kinds are always enough.
    """
    slots: list[Slot] = []
    shared = rng.choice(COUNTED)
    taken: set[tuple[str, str]] = set()
    used: set[str] = set()
    while len(slots) < count:
        who = people[len(slots) % len(people)]
        kind = theme if rng.random() < 0.8 else rng.choice(_KINDS)
        mark = (kind, who if kind in _PERSONAL else "")
        value = rng.choice(_POOLS[kind])
        if mark in taken or value in used:
            continue
        taken.add(mark)
        used.add(value)
        thing = shared if rng.random() < 0.7 else rng.choice(COUNTED)
        slots.append((who, kind, value, thing if kind == "count" else ""))
    return slots


_TURNS: dict[int, Callable[[random.Random], tuple[int, int]]] = {
    1: lambda rng: (2, 2),
    2: lambda rng: (rng.randint(3, 4), rng.randint(2, 3)),
    3: lambda rng: (rng.randint(3, 4), rng.randint(2, 3)),
}
"""Level to a draw of (plans, speakers)."""


class Dialogue(Skill):
    """Slot questions; chance is a blind pick among the values of the asked kind, two as a rule."""

    name: ClassVar[str] = "dialogue"
    chance: ClassVar[float] = 0.62
    answer_tokens: ClassVar[int] = 32

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        """Two to six turns and a question about one slot."""
        plans, speakers = _TURNS[level](rng)
        people = rng.sample(PEOPLE, speakers)
        slots = _slots(rng, people, plans, rng.choice(_THEMES))
        asked = rng.randrange(plans)
        who, kind, value, thing = slots[asked]
        turns = [_say(rng, slot) for slot in slots]
        answer = value
        worked = f"{who} says {value}. The answer is {answer}."
        named = [s[2] for s in slots if s[1] == kind]
        changed = ""
        if level == 3:
            at = asked if rng.random() < 0.7 else rng.randrange(plans)
            speaker, topic, old, counted = slots[at]
            changed = rng.choice([v for v in _POOLS[topic] if v not in named and v != old])
            change = rng.choice(_CHANGES[topic]).format(old, changed, counted)
            turns.insert(rng.randint(at + 1, plans), f"{speaker}: {change}")
            if topic == kind:
                named.append(changed)
            if at == asked:
                answer = changed
                worked = f"First {value}, then {answer}. The answer is {answer}."
        prompt = f"{' '.join(turns)} {rng.choice(_ASKS[kind]).format(who, thing)}"
        key = f"{kind} {asked} {answer} {changed} {' '.join(' '.join(s) for s in slots)}"
        meta = {"kind": kind, "who": who, "options": named, "turns": len(turns)}
        return prompt, answer, worked, key, meta

    def verify(self, item: Item, text: str) -> float:
        """Exact match of the final answer; an article before it does not matter."""
        said = normal(final_answer(text)).removeprefix("the ").removeprefix("on ")
        return float(said == normal(item.answer))
