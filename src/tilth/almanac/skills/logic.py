"""Logic: who is the tallest, does it follow, which word does not belong.

The level is the number of links: relations to order, rules to chain, words to compare. Two items::

    Ada is taller than Ben. Ben is taller than Cora. Who is the tallest?           -> Ada
    All goats are wet. No wet animal is in the barn. Pip is a goat.
    Is Pip in the barn?   -> Pip is a goat. Pip is wet. Pip is not in the barn. The answer is no.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any, ClassVar

from tilth.almanac.skills._base import Skill
from tilth.almanac.skills._words import GROUPS, PEOPLE

__all__ = ["Logic"]

Drawn = tuple[str, str, str, str, dict[str, Any]]

_SCALES = (
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("faster", "slower", "fastest", "slowest"),
    ("richer", "poorer", "richest", "poorest"),
)
_KINDS = ("goat", "hen", "duck", "horse", "cow", "pig", "donkey", "dog", "cat")
_NAMES = (
    "Pip",
    "Moss",
    "Bran",
    "Fern",
    "Dot",
    "Rusty",
    "Snow",
    "Hazel",
    "Bob",
    "Tilly",
    "Nut",
    "Jet",
)
_TRAITS = ("wet", "red", "white", "black", "old", "big", "small", "tame", "hungry", "tired", "calm")
_STATES = (
    "in the barn",
    "in the field",
    "at the well",
    "on the cart",
    "at the mill",
    "by the gate",
)
_ODD_ASKS = (
    "Which word does not belong: {}?",
    "Which is the odd one out: {}?",
    "Find the word that does not fit: {}.",
)


def _ordering(rng: random.Random, level: int) -> Drawn:
    """`level` + 1 relations between `level` + 2 people; who is first, last or second."""
    more, less, most, least = rng.choice(_SCALES)
    people = rng.sample(PEOPLE, level + 2)
    told = [
        f"{b} is {less} than {a}."
        if level > 1 and rng.random() < 0.4
        else f"{a} is {more} than {b}."
        for a, b in pairwise(people)
    ]
    if level > 1:
        rng.shuffle(told)
    asked = rng.randrange(3 if level == 3 else 2)
    word, answer = ((most, people[0]), (least, people[-1]), (f"second {most}", people[1]))[asked]
    tail = rng.choice(("Who is the {}?", "Tell me who is the {}.")).format(word)
    worked = f"{', '.join(people)}. The answer is {answer}."
    key = f"order {more} {word} {' '.join(people)}"
    meta = {"kind": "ordering", "options": people}
    return f"{' '.join(told)} {tail}", answer, worked, key, meta


def _syllogism(rng: random.Random, level: int) -> Drawn:
    """`level` rules in a chain; the last may deny, any may not apply."""
    kind, other = rng.sample(_KINDS, 2)
    name = rng.choice(_NAMES)
    traits = rng.sample(_TRAITS, level - 1)
    state = rng.choice(_STATES if level > 1 or rng.random() < 0.5 else _TRAITS)
    answer = rng.choice(("yes", "no", "unknown"))
    denies = answer == "no" or (answer == "unknown" and rng.random() < 0.5)
    classes = [f"{kind}s", *(f"{t} animals" for t in traits)]
    single = [kind, *(f"{t} animal" for t in traits)]
    rules = [f"All {c} are {t}." for c, t in zip(classes, traits, strict=False)]
    rules.append(f"No {single[-1]} is {state}." if denies else f"All {classes[-1]} are {state}.")
    subject = other if answer == "unknown" else kind
    fact = f"{name} is a {subject}."
    told = [fact, *rules] if rng.random() < 0.3 else [*rules, fact]
    asked = f"Is {name} {state}?"
    if answer == "unknown":
        steps = f"{name} is a {subject}, not a {kind}. We do not know."
    else:
        then = " ".join(f"{name} is {t}." for t in traits)
        end = f"{name} is {'not ' if denies else ''}{state}."
        steps = f"{name} is a {kind}. {then} {end}" if traits else f"{name} is a {kind}. {end}"
    key = f"rule {name} {kind} {subject} {' '.join(traits)} {state} {denies}"
    meta = {"kind": "syllogism", "options": ["yes", "no", "unknown"]}
    prompt = f"{' '.join(told)} {asked} Say yes, no or unknown."
    return prompt, answer, f"{steps} The answer is {answer}.", key, meta


def _odd_one_out(rng: random.Random, level: int) -> Drawn:
    """`level` + 2 words of one group and one of another."""
    group, stranger = rng.sample(tuple(GROUPS), 2)
    fitting = rng.sample(GROUPS[group], level + 2)
    odd = rng.choice(GROUPS[stranger])
    words = [*fitting]
    words.insert(rng.randint(0, len(words)), odd)
    prompt = rng.choice(_ODD_ASKS).format(", ".join(words))
    worked = f"{', '.join(fitting)} are {group}. The answer is {odd}."
    meta = {"kind": "odd_one_out", "options": words}
    return prompt, odd, worked, f"odd {' '.join(words)}", meta


class Logic(Skill):
    """Three kinds in equal shares; chance is a blind pick among the named options."""

    name: ClassVar[str] = "logic"
    chance: ClassVar[float] = 0.27
    answer_tokens: ClassVar[int] = 64

    def draw(self, rng: random.Random, level: int) -> Drawn:
        """An ordering, a syllogism or an odd one out."""
        return rng.choice((_ordering, _syllogism, _odd_one_out))(rng, level)
