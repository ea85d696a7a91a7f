"""Word problems: a story of one to six steps with small numbers.

The level is the number of steps; values stay in 0..20 up to level 3 and in 0..60 above. Two items::

    Ada has 3 sacks. Ada buys 4 more. How many sacks are there now?          -> 7
    Ben counts 8 hens. Then half of them are sold. Cora brings 5 more.
    How many hens does Ben have now?      -> 8 / 2 = 4. 4 + 5 = 9. The answer is 9.

:func:`solve` reads any question in these wordings back, also one that a model wrote, and says the
answer or that there is none; :func:`harder` adds a step to an item; :func:`corrupt` spoils one.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from tilth.almanac.skills._base import Item, Skill, final_answer, split_of
from tilth.almanac.skills._words import COUNTED, PEOPLE
from tilth.seeds import derive

__all__ = ["Story", "WordProblems", "corrupt", "harder", "parse", "solve"]

LIMIT = 99
_STARTS = (
    "{who} has {n} {thing}.",
    "{who} counts {n} {thing}.",
    "{who} starts with {n} {thing}.",
    "{who} keeps {n} {thing} in the barn.",
)
_TELLS: dict[str, tuple[str, ...]] = {
    "+": (
        "{who} buys {k} more.",
        "{who} finds {k} more.",
        "{other} brings {k} more.",
        "Then {k} more come in.",
    ),
    "-": (
        "{who} sells {k} of them.",
        "{who} loses {k} of them.",
        "{other} takes {k} away.",
        "Then {k} of them are sold.",
    ),
    "*2": ("{who} doubles them.", "Then the number doubles."),
    "/2": ("{who} keeps only half of them.", "Then half of them are sold."),
    "/3": ("{who} keeps only a third of them.", "Then one third of them is left."),
}
_ASKS = (
    "How many {thing} are there now?",
    "How many {thing} does {who} have now?",
    "How many {thing} are left at the end?",
)


def _pattern(forms: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all `forms`; numbers are group ``k``, things group ``thing``."""
    either = "|".join(
        re.escape(form)
        .replace(r"\{who\}", "[A-Z][a-z]+")
        .replace(r"\{other\}", "[A-Z][a-z]+")
        .replace(r"\{n\}", "#")
        .replace(r"\{k\}", "#")
        .replace(r"\{thing\}", "@")
        .rstrip(".")
        for form in forms
    )
    return re.compile(f"(?:{either})".replace("#", r"(\d{1,3})").replace("@", "([a-z]+)"))


_START_RE = _pattern(tuple(f.removesuffix(".") for f in _STARTS))
_TELL_RES = {op: _pattern(tuple(f.removesuffix(".") for f in fs)) for op, fs in _TELLS.items()}
_ASK_RE = _pattern(_ASKS)
_SENTENCE_END = re.compile(r"(?<=[.?]) +")
_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Story:
    """A problem without its wording: who, what, the start value and the steps.

    A step is an operation and its amount, such as ``("+", 4)`` or ``("/2", 0)``.
    """

    who: str
    thing: str
    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def key(self) -> str:
        """The canonical argument set."""
        told = " ".join(op + (str(k) if k else "") for op, k in self.steps)
        return f"{self.who} {self.thing} {self.start} {told}"

    def values(self) -> list[int] | None:
        """Start value and the value after every step; ``None`` where a step is impossible."""
        values = [self.start]
        for op, k in self.steps:
            after = _apply(values[-1], op, k)
            if after is None or not 0 <= after <= LIMIT:
                return None
            values.append(after)
        return values if self.start <= LIMIT else None


def _apply(value: int, op: str, k: int) -> int | None:
    if op == "+":
        return value + k
    if op == "-":
        return value - k
    if op == "*2":
        return value * 2
    divisor = int(op[1])
    return value // divisor if value % divisor == 0 else None


def _choose(rng: random.Random, value: int, high: int) -> tuple[str, int]:
    """A step that is possible from `value` and stays in 0..`high`."""
    point = rng.random()
    if point < 0.10 and 1 < value * 2 <= high:
        return "*2", 0
    if point < 0.22 and value >= 2 and value % 2 == 0:
        return "/2", 0
    if point < 0.27 and value >= 3 and value % 3 == 0:
        return "/3", 0
    if (point < 0.64 and value < high) or value == 0:
        return "+", rng.randint(1, min(9, high - value))
    return "-", rng.randint(1, min(9, value))


def _worked(story: Story, values: list[int]) -> str:
    lines = []
    for (op, k), before, after in zip(story.steps, values, values[1:], strict=False):
        sign, amount = (op, k) if k else (op[0], int(op[1]))
        lines.append(f"{before} {sign} {amount} = {after}.")
    return f"{' '.join(lines)} The answer is {values[-1]}."


def _tell(rng: random.Random, who: str, step: tuple[str, int]) -> str:
    other = rng.choice(PEOPLE)
    return rng.choice(_TELLS[step[0]]).format(who=who, other=other, k=step[1])


def _meta(story: Story, values: list[int]) -> dict[str, Any]:
    return {"story": story, "steps": list(story.steps), "values": values, "solvable": True}


class WordProblems(Skill):
    """Story chains; chance is the share of the most frequent value, averaged over levels."""

    name: ClassVar[str] = "word_problems"
    levels: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6)
    chance: ClassVar[float] = 0.07
    answer_tokens: ClassVar[int] = 80

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        """A story of `level` steps."""
        high = 20 if level <= 3 else 60
        who, thing = rng.choice(PEOPLE), rng.choice(COUNTED)
        values = [rng.randint(2, 15)]
        steps: list[tuple[str, int]] = []
        for _ in range(level):
            op, k = _choose(rng, values[-1], high)
            after = _apply(values[-1], op, k)
            assert after is not None
            steps.append((op, k))
            values.append(after)
        story = Story(who, thing, values[0], tuple(steps))
        told = [rng.choice(_STARTS).format(who=who, n=values[0], thing=thing)]
        told += [_tell(rng, who, step) for step in steps]
        told.append(rng.choice(_ASKS).format(who=who, thing=thing))
        meta = _meta(story, values)
        return " ".join(told), str(values[-1]), _worked(story, values), story.key, meta

    def verify(self, item: Item, text: str) -> float:
        """1 where the last whole number of the final answer is the right one."""
        numbers = _NUMBER.findall(final_answer(text))
        return float(bool(numbers) and numbers[-1].lstrip("0") == item.answer.lstrip("0"))


def parse(prompt: str) -> Story | None:
    """The story that `prompt` tells, or ``None`` where it is not a well-formed question.

    Well-formed means: one start, then at least one step, then one question about the same thing,
    each in one of the skill's wordings. Whether the steps are possible is not asked.
    """
    sentences = _SENTENCE_END.split(" ".join(prompt.split()))
    if len(sentences) < 3 or not sentences[-1].endswith("?"):
        return None
    start = _START_RE.fullmatch(sentences[0].removesuffix("."))
    asked = _ASK_RE.fullmatch(sentences[-1])
    if start is None or asked is None or not sentences[0].endswith("."):
        return None
    number, thing = [g for g in start.groups() if g is not None]
    if next(g for g in asked.groups() if g is not None) != thing:
        return None
    steps = []
    for sentence in sentences[1:-1]:
        step = _parse_step(sentence)
        if step is None:
            return None
        steps.append(step)
    return Story(sentences[0].split()[0], thing, int(number), tuple(steps))


def _parse_step(sentence: str) -> tuple[str, int] | None:
    if not sentence.endswith("."):
        return None
    for op, pattern in _TELL_RES.items():
        found = pattern.fullmatch(sentence[:-1])
        if found:
            return op, next((int(g) for g in found.groups() if g is not None), 0)
    return None


def solve(prompt: str) -> int | None:
    """The answer of a question in this family, or ``None`` where it has none.

    A question has no answer where it is not well-formed (see :func:`parse`) or where a value
    leaves 0..99 or is not whole.

    Example:
        >>> solve("Ada has 3 sacks. Ada buys 4 more. How many sacks are there now?")
        7
        >>> solve("Ada has 3 sacks. Ada keeps only half of them. How many sacks are there now?")
    """
    story = parse(prompt)
    values = story.values() if story else None
    return values[-1] if values else None


def harder(item: Item) -> Item:
    """The same problem with one more step, in the same split.

    The step is told last where that keeps the split, else between two others. The level grows by
    one and may pass 6. In a small split it can happen that no single step stays in it; then the
    result has two more. It is a function of `item` alone.
    """
    home = split_of(item.key)
    rng = random.Random(derive(0, "harder", item.id))
    while True:
        for attempt in range(200):
            longer = _with_step(item, rng, last=attempt < 20)
            if longer is not None and split_of(longer.key) == home:
                return longer
        item = longer or item


def _with_step(item: Item, rng: random.Random, *, last: bool) -> Item | None:
    """`item` with a step more, the last one or anywhere; ``None`` where a value gets too large."""
    story: Story = item.meta["story"]
    high = 20 if item.level < 3 else 60
    at = len(story.steps) if last else rng.randint(0, len(story.steps))
    step = _choose(rng, item.meta["values"][at], high)
    steps = (*story.steps[:at], step, *story.steps[at:])
    longer = Story(story.who, story.thing, story.start, steps)
    values = longer.values()
    if values is None or max(values) > max(high, *item.meta["values"]):
        return None
    return _extended(item, longer, values, at, _tell(rng, story.who, step))


def _extended(item: Item, story: Story, values: list[int], at: int, told: str) -> Item:
    """`item` with the sentence `told` as step number `at`."""
    sentences = _SENTENCE_END.split(item.prompt)
    sentences.insert(at + 1, told)
    return Item(
        id=f"{item.id}+1",
        skill=item.skill,
        level=item.level + 1,
        prompt=" ".join(sentences),
        answer=str(values[-1]),
        worked=_worked(story, values),
        key=story.key,
        meta=_meta(story, values),
    )


def corrupt(item: Item, rng: random.Random) -> str:
    """The question spoilt so that it has no answer: :func:`solve` gives ``None``.

    One of: a number is hidden, more is taken than there is, the question asks about another
    thing, the question is missing.
    """
    story: Story = item.meta["story"]
    told, asked = item.prompt.rsplit(". ", 1)
    kind = rng.randrange(4)
    if kind == 0:
        return re.sub(r"\d+", "some", item.prompt, count=1)
    if kind == 1:
        too_many = item.meta["values"][-1] + rng.randint(1, 9)
        return f"{told}. {_tell(rng, story.who, ('-', too_many))} {asked}"
    if kind == 2:
        other = rng.choice([t for t in COUNTED if t != story.thing])
        return f"{told}. {asked.replace(story.thing, other)}"
    return f"{told}."
