"""Small Python functions: write one from a description, or write the tests of one.

Level 1 has no branch, level 2 one, level 3 two or three. A third of the items show the function and
ask for its tests. ``meta`` has name, tests (one assert per branch), variants (wrong functions that
good tests catch), branches and family. Two items::

    Write bale_sum(n) to return n times 3 plus 4.    -> def bale_sum(n):
                                                            return n * 3 + 4
    Write tests for this function. def ...           -> assert bale_sum(2) == 10

Answers that differ from the canonical one are executed in :mod:`tilth.sandbox`.
"""

from __future__ import annotations

import random
import re
from typing import Any, ClassVar

from tilth.almanac.skills._base import Item, Skill
from tilth.almanac.skills._programs import FAMILIES

__all__ = ["Functions", "ask_for_tests", "plain_code"]

_NOUNS = (
    *("sack", "cart", "hen", "mill", "field", "barn", "egg", "seed", "hay", "crop", "bale", "well"),
    *("herd", "plot", "feed", "load"),
)
_TAILS = (
    *("rule", "sum", "check", "mark", "part", "rate", "plan", "note", "step", "cost", "size"),
    *("code", "list", "sign", "form", "gain"),
)
_WRITE = (
    "Write {name}({params}) to {told}.",
    "Write the function {name}({params}) to {told}.",
    "In Python, write {name}({params}) to {told}.",
)
_TEST = "Write tests for this function.\n{code}"
_TEST_SHARE = 1 / 3  # our choice: tests are harder to learn than functions, both must be seen
_UNPRINTABLE = re.compile("[\0\ud800-\udfff]")  # no Python source holds these
_MAX_CODE = 4_000  # characters; a longer answer is no small function


def plain_code(text: str) -> str:
    """Code without a fence, outer and trailing blanks, and empty lines, for comparison."""
    fenced = re.search(r"```(?:python)?\n(.*?)(?:```|\Z)", text, re.DOTALL)
    lines = (fenced.group(1) if fenced else text).strip().split("\n")
    return "\n".join(line.rstrip() for line in lines if line.strip())


class Functions(Skill):
    """Functions and tests; nothing constant is right for a name that it cannot know."""

    name: ClassVar[str] = "functions"
    chance: ClassVar[float] = 0.0
    answer_tokens: ClassVar[int] = 128

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        """A function of the level's families; the body alone is the key."""
        program = rng.choice(FAMILIES[level])(rng)
        name = f"{rng.choice(_NOUNS)}_{rng.choice(_TAILS)}"
        code, tests = program.code(name), program.tests(name)
        wording = rng.choice(_WRITE)
        kind = "tests" if rng.random() < _TEST_SHARE else "code"
        meta = {
            "kind": kind,
            "name": name,
            "family": program.family,
            "code": code,
            "tests": tests,
            "variants": [program.code(name, body) for body in program.wrong],
            "branches": len(program.probes) - 1,
        }
        key = f"{program.params}: {program.body}"
        if kind == "tests":
            return _TEST.format(code=code), "\n".join(tests), "", key, meta
        prompt = wording.format(name=name, params=program.params, told=program.told)
        return prompt, code, "", key, meta

    def verify(self, item: Item, text: str) -> float:
        """A function: 1 where all tests pass. Tests: the share of wrong variants that they catch.

        Tests that fail on the right function, or call something else, score 0. Nothing is executed
        where the text equals the canonical answer or cannot be right.
        """
        said = plain_code(text)
        if said == plain_code(item.answer):
            return 1.0
        if len(said) > _MAX_CODE or _UNPRINTABLE.search(said):
            return 0.0
        name, code = item.meta["name"], item.meta["code"]
        if item.meta["kind"] == "code":
            return float(f"def {name}(" in said and all(_pass([said], _lines(item))))
        if "assert" not in said or f"{name}(" not in said or f"def {name}" in said:
            return 0.0
        right, *wrong = _pass([code, *item.meta["variants"]], said)
        return sum(not passed for passed in wrong) / len(wrong) if right else 0.0


def _lines(item: Item) -> str:
    return "\n".join(item.meta["tests"])


def _pass(codes: list[str], tests: str) -> list[bool]:
    """Whether each program reaches the end of `tests`; a program that leaves early does not."""
    from tilth.sandbox import Program, run_many

    return [bool(result.ok) for result in run_many([Program(code, tests) for code in codes])]


def ask_for_tests(item: Item) -> Item:
    """The test-writing twin of a function item: the same function, the same split."""
    prompt, answer = _TEST.format(code=item.meta["code"]), _lines(item)
    meta = {**item.meta, "kind": "tests"}
    return Item(f"{item.id}/tests", item.skill, item.level, prompt, answer, "", item.key, meta)
