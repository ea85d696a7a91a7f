"""Velic, an invented language: translate words, phrases and sentences in both directions.

Sixty-odd words with a fixed lexicon. Nouns come before their adjective and the number after both,
the plural adds ``-ni``, a place takes ``ta`` behind it, the verb stands last, and ``ma`` before the
verb denies it. Level 1 asks for single words, level 2 for phrases, level 3 for sentences. Items::

    Say in Velic: two red hens in the barn                    -> boro ta keloni sul bes
    Translate from Velic: mavo keloni ma tiru                 -> the miller did not see the hens
"""

from __future__ import annotations

import random
from typing import Any, ClassVar

from tilth.almanac.skills._base import Skill

__all__ = ["LEXICON", "SecondLanguage", "gloss", "velic"]

_NOUNS = {
    **{"hen": "kelo", "goat": "dami", "horse": "runo", "cow": "mubo", "dog": "hafo"},
    **{"cat": "misa", "duck": "kapo", "pig": "gruno", "sack": "tabo", "cart": "vegi"},
    **{"spade": "lopo", "rope": "sefi", "bucket": "dumo", "ladder": "skalo", "apple": "pomi"},
    **{"pear": "beri", "egg": "ovo", "seed": "semi", "farmer": "agro", "miller": "mavo"},
    **{"baker": "pano", "shepherd": "lano"},
}
_LIVING = ("farmer", "miller", "baker", "shepherd", "hen", "goat", "horse", "cow", "dog", "cat")
_PLACES = {
    **{"barn": "boro", "field": "polo", "mill": "mola", "well": "watu", "market": "foro"},
    **{"orchard": "frusa", "bridge": "ponto", "shed": "kabo"},
}
_ADJECTIVES = {
    **{"red": "sul", "white": "bil", "black": "nor", "old": "vet", "new": "nuv", "big": "gan"},
    **{"small": "pik", "wet": "mol", "dry": "sek", "good": "bon"},
}
_NUMBERS = {"two": "bes", "three": "tris", "four": "kes", "five": "pens"}
_VERBS = {
    "see": ("saw", "tiru"),
    "find": ("found", "luku"),
    "buy": ("bought", "metu"),
    "sell": ("sold", "vandu"),
    "carry": ("carried", "poru"),
    "bring": ("brought", "renu"),
    "wash": ("washed", "lavu"),
    "lose": ("lost", "perdu"),
    "clean": ("cleaned", "kinu"),
    "want": ("wanted", "volu"),
}
_PARTICLES = {"in": "ta", "not": "ma"}
_PAST = {past: word for past, word in _VERBS.values()}
LEXICON: dict[str, str] = {
    **_NOUNS,
    **_PLACES,
    **_ADJECTIVES,
    **_NUMBERS,
    **{base: word for base, (_, word) in _VERBS.items()},
}
"""English base form to Velic, 54 words; with ``ta``, ``ma`` and ``-ni`` the whole language."""

_INTO = ("Say in Velic: {}", "Translate into Velic: {}", "Write in Velic: {}")
_FROM = ("Say in English: {}", "Translate from Velic: {}", "Write in English: {}")
_WORDS = tuple(LEXICON)
_THINGS, _WHERE = tuple(_NOUNS), tuple(_PLACES)
_KINDS, _COUNTS, _DEEDS = tuple(_ADJECTIVES), tuple(_NUMBERS), tuple(_VERBS)

Pairs = list[tuple[str, str]]
"""(English, Velic) word by word, in English order; a word without a counterpart is left out."""


def velic(word: str) -> str | None:
    """One English word, base form, plural or past, in Velic."""
    for words in (LEXICON, _PAST, _PARTICLES):
        if word in words:
            return words[word]
    single = word.removesuffix("s")
    return _NOUNS[single] + "ni" if single in _NOUNS and single != word else None


def gloss(english: str) -> Pairs:
    """The dictionary lines behind an English text."""
    found = ((w, velic(w)) for w in english.replace(",", "").split())
    return [(word, other) for word, other in found if other is not None]


def _noun_phrase(rng: random.Random, nouns: tuple[str, ...], plain: float) -> tuple[str, str]:
    """A noun phrase in English and in Velic; `plain` is the probability of no adjective."""
    noun = rng.choice(nouns)
    form = rng.randrange(3)  # one, many, a number of them
    count = rng.choice(_COUNTS) if form == 2 else ""
    kind = "" if rng.random() < plain else rng.choice(_KINDS)
    english = [count or "the", kind, noun + ("s" if form else "")]
    other = [
        _NOUNS[noun] + ("ni" if form else ""),
        _ADJECTIVES.get(kind, ""),
        _NUMBERS.get(count, ""),
    ]
    return " ".join(filter(None, english)), " ".join(filter(None, other))


def _place(rng: random.Random) -> tuple[str, str]:
    place = rng.choice(_WHERE)
    kind = "" if rng.random() < 0.4 else rng.choice(_KINDS)
    other = f"{_PLACES[place]} {_ADJECTIVES[kind]} ta" if kind else f"{_PLACES[place]} ta"
    return " ".join(filter(None, ["in the", kind, place])), other


def _sentence(rng: random.Random) -> tuple[str, str]:
    subject, agent = _noun_phrase(rng, _LIVING, 0.6)
    thing, patient = _noun_phrase(rng, _THINGS, 0.6)
    base = rng.choice(_DEEDS)
    past, word = _VERBS[base]
    if rng.random() < 0.35:
        return f"{subject} did not {base} {thing}", f"{agent} {patient} ma {word}"
    return f"{subject} {past} {thing}", f"{agent} {patient} {word}"


class SecondLanguage(Skill):
    """Exact translation; no constant answer is ever right twice in a hundred."""

    name: ClassVar[str] = "second_language"
    chance: ClassVar[float] = 0.0
    answer_tokens: ClassVar[int] = 96

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        """Three words, a phrase with a place, or a sentence, in one of the two directions."""
        if level == 1:
            words = rng.sample(_WORDS, 3)
            english, other = ", ".join(words), ", ".join(LEXICON[w] for w in words)
        elif level == 2:
            phrase, spoken = _noun_phrase(rng, _THINGS, 0.2)
            where, there = _place(rng)
            english, other = f"{phrase} {where}", f"{there} {spoken}"
        else:
            english, other = _sentence(rng)
        into = rng.random() < 0.5
        lines = gloss(english)
        if into:
            prompt, answer = rng.choice(_INTO).format(english), other
            shown = ", ".join(f"{a} = {b}" for a, b in lines)
        else:
            prompt, answer = rng.choice(_FROM).format(other), english
            order = other.replace(",", "").split()
            lines.sort(key=lambda pair: order.index(pair[1]))
            shown = ", ".join(f"{b} = {a}" for a, b in lines)
        worked = f"{shown}. The answer is {answer}." if level > 1 else ""
        meta = {"english": english, "velic": other, "into": into}
        return prompt, answer, worked, english, meta
