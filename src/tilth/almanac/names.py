"""Invented names: pronounceable, unique, and the same on every machine.

Names are drawn without replacement, so that no two entities of the world share one; the names
after those of the world serve as *twins*: entities that look like the others and do not exist.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tilth.seeds import derive

__all__ = ["names"]

_ONSETS = [
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "r",
    "s",
    "sh",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
_MIDDLES = ["b", "d", "g", "l", "ll", "m", "n", "nd", "nt", "r", "rd", "rk", "s", "st", "t", "v"]
_ENDS = {
    "variety": ["a", "el", "en", "ia", "in", "is", "on", "or", "um", "yn"],
    "place": ["bury", "by", "dale", "field", "ford", "ham", "ley", "mere", "ton", "wick"],
    "pest": ["bug", "fly", "grub", "mite", "moth", "rot", "rust", "scale", "smut", "weevil"],
    "person": ["a", "ac", "an", "as", "er", "ic", "id", "ot", "us", "wen"],
}


def names(kind: str, seed: int) -> Iterator[str]:
    """Endless unique names of a kind: ``variety``, ``place``, ``pest`` or ``person``."""
    rng = random.Random(derive(seed, "names", kind))
    seen: set[str] = set()
    while True:
        stem = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_MIDDLES)
        if kind == "variety" and rng.random() < 0.6:
            stem += rng.choice("aeio") + rng.choice(["l", "m", "n", "r", "s", "t", "v"])
        name = (stem + rng.choice(_ENDS[kind])).capitalize()
        if name not in seen:
            seen.add(name)
            yield name
