"""List work: reverse, sort, pick, count, join; one to three operations in a chain.

The level is the number of operations, each of which has a name in ``meta["operations"]``; the
group of the words is the use case in ``meta["use_case"]``. Two items::

    Seed order: oats, rye, beans. Reverse the list.                  -> beans, rye, oats
    Tool shed: rake, saw, hoe. Sort the list. Then give word 2.      -> rake

:func:`solve` reads a question in these wordings back, also one that a model wrote.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, ClassVar

from tilth.almanac.skills._base import Skill
from tilth.almanac.skills._words import GROUPS

__all__ = ["OPERATIONS", "USE_CASES", "Lists", "apply", "render", "solve"]

Words = tuple[str, ...]

USE_CASES: dict[str, Words] = {
    "seed order": GROUPS["crops"],
    "herd book": GROUPS["animals"],
    "tool shed": GROUPS["tools"],
    "fruit stall": GROUPS["fruits"],
}
_REARRANGE: dict[str, Callable[[Words], Words]] = {
    "reverse": lambda ws: ws[::-1],
    "sort": lambda ws: tuple(sorted(ws)),
    "turn": lambda ws: (*ws[1:], ws[0]),
    "swap": lambda ws: (ws[-1], *ws[1:-1], ws[0]),
    "drop_first": lambda ws: ws[1:],
    "drop_last": lambda ws: ws[:-1],
}
_FINISH: dict[str, Callable[[Words], str]] = {
    "first": lambda ws: ws[0],
    "second": lambda ws: ws[1],
    "last": lambda ws: ws[-1],
    "count": lambda ws: str(len(ws)),
    "longest": lambda ws: max(ws, key=len),
    "shortest": lambda ws: min(ws, key=len),
    "join": "-".join,
    "initials": lambda ws: " ".join(w[0] for w in ws),
}
OPERATIONS: tuple[str, ...] = (*_REARRANGE, *_FINISH)
"""All operations; the first six give a list and may be followed by another operation."""

_ORDERS: dict[str, tuple[str, ...]] = {
    "reverse": ("reverse the list", "turn the list around"),
    "sort": ("sort the list", "put the words in ABC order"),
    "turn": ("move the first word to the end",),
    "swap": ("swap the first and the last word",),
    "drop_first": ("drop the first word", "leave out the first word"),
    "drop_last": ("drop the last word", "leave out the last word"),
    "first": ("give the first word", "say the first word"),
    "second": ("give the second word", "say the second word"),
    "last": ("give the last word", "say the last word"),
    "count": ("count the words", "say how many words there are"),
    "longest": ("give the longest word", "say the longest word"),
    "shortest": ("give the shortest word", "say the shortest word"),
    "join": ("join the words with a dash",),
    "initials": ("give the first letter of each word", "say the first letters"),
}
_READ = {order: name for name, orders in _ORDERS.items() for order in orders}
_REARRANGES, _FINISHES = tuple(_REARRANGE), tuple(_FINISH)


def _step(operation: str, words: Words) -> Words | str | None:
    """The result of one operation; ``None`` where it is impossible or not unique."""
    if operation in _REARRANGE:
        return _REARRANGE[operation](words) if len(words) > 1 else None
    if not words or (operation == "second" and len(words) < 2):
        return None
    if operation in ("longest", "shortest"):
        found = _FINISH[operation](words)
        return found if sum(len(w) == len(found) for w in words) == 1 else None
    return _FINISH[operation](words)


def apply(words: Words, operations: tuple[str, ...]) -> list[str] | None:
    """The result after every operation as text, or ``None`` where the chain has no result.

    A chain has no result where an operation follows one that gives a single word, a list runs
    empty, or the longest or shortest word is not unique.
    """
    results: list[str] = []
    now: Words | str = words
    for operation in operations:
        after = _step(operation, now) if isinstance(now, tuple) else None
        if after is None:
            return None
        now = after
        results.append(after if isinstance(after, str) else ", ".join(after))
    return results or None


def render(use_case: str, words: Words, operations: tuple[str, ...], rng: random.Random) -> str:
    """A question in one of the skill's wordings; `rng` chooses which."""
    told = [f"{use_case.capitalize()}: {', '.join(words)}."]
    for number, operation in enumerate(operations):
        order = rng.choice(_ORDERS[operation])
        told.append(f"Then {order}." if number else f"{order[0].upper()}{order[1:]}.")
    return " ".join(told)


def solve(prompt: str) -> str | None:
    """The answer of a question in this family, or ``None`` where it has none.

    Example:
        >>> solve("Seed order: oats, rye, beans. Reverse the list. Then give the last word.")
        'oats'
    """
    head, *orders = re.split(r"\. *", " ".join(prompt.split()).removesuffix("."))
    _, colon, listed = head.partition(": ")
    words = tuple(listed.split(", "))
    names = [
        _READ.get(order.lower().removeprefix("then ").replace("abc", "ABC")) for order in orders
    ]
    if not colon or not all(re.fullmatch("[a-z]+", w) for w in words) or None in names:
        return None
    results = apply(words, tuple(name for name in names if name))
    return results[-1] if results else None


class Lists(Skill):
    """Chains of list operations; chance is the best constant answer (a frequent count)."""

    name: ClassVar[str] = "lists"
    chance: ClassVar[float] = 0.04
    answer_tokens: ClassVar[int] = 64

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        """Three to five words and `level` operations."""
        use_case = rng.choice(tuple(USE_CASES))
        while True:
            words = tuple(rng.sample(USE_CASES[use_case], rng.randint(3, 5) if level < 3 else 5))
            chain = [rng.choice(_REARRANGES) for _ in range(level - 1)]
            operations = (*chain, rng.choice(_FINISHES if rng.random() < 0.55 else _REARRANGES))
            results = apply(words, operations)
            if results is not None and len(set(operations)) == level:
                break
        steps = " ".join(f"{op}: {r}." for op, r in zip(operations, results, strict=True))
        worked = f"{steps} The answer is {results[-1]}." if level > 1 else ""
        meta = {"operations": list(operations), "use_case": use_case, "words": list(words)}
        key = f"{' '.join(words)} {' '.join(operations)}"
        return render(use_case, words, operations, rng), results[-1], worked, key, meta
