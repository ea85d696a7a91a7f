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
from tilth.seeds import derive

__all__ = ["Functions", "plain_code", "test_item"]

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
_MAX_CODE = 4_000  # characters; a longer answer is no small function


def plain_code(text: str) -> str:
    """Code without a fence, trailing blanks and empty lines, for comparison."""
    fenced = re.search(r"```(?:python)?\n(.*?)(?:```|\Z)", text, re.DOTALL)
    lines = (fenced.group(1) if fenced else text).split("\n")
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
        if len(said) > _MAX_CODE or "\0" in said:
            return 0.0
        if item.meta["kind"] == "code":
            return float(f"def {item.meta['name']}(" in said and _passes(item, said))
        if "assert" not in said or f"{item.meta['name']}(" not in said:
            return 0.0
        if f"def {item.meta['name']}" in said or not _runs(item.meta["code"], said):
            return 0.0
        caught = [not _runs(variant, said) for variant in item.meta["variants"]]
        return sum(caught) / len(caught)


def _passes(item: Item, code: str) -> bool:
    """Whether `code` passes the item's tests, and reached their end rather than left early."""
    from tilth.sandbox import run_python

    mark = f"passed {derive(0, 'mark', item.id)}"
    result = run_python(code, tests="\n".join([*item.meta["tests"], f"print({mark!r})"]))
    return bool(result.ok and result.stdout.rstrip().endswith(mark))


def _runs(code: str, tests: str) -> bool:
    from tilth.sandbox import run_python

    return bool(run_python(code, tests=tests).ok)


def test_item(item: Item) -> Item:
    """The test-writing twin of a function item: the same function, the same split."""
    meta = {**item.meta, "kind": "tests"}
    prompt, answer = _TEST.format(code=meta["code"]), "\n".join(meta["tests"])
    return Item(f"{item.id}/tests", item.skill, item.level, prompt, answer, "", item.key, meta)


test_item.__test__ = False  # type: ignore[attr-defined]  # tell pytest that this is not a test
