"""What a skill of the almanac is: items by index, an answer, a verifier, levels, a chance level.

Item 17 of a skill at level 2 in a split is the same on every machine and needs no list in memory:
it is drawn from a stream named by those words. Splits are disjoint by construction: an item's
*key* (its arguments, or the entity that it asks about) decides by its hash to which split it
belongs, and a draw that lands in another split is drawn again.
"""

from __future__ import annotations

import hashlib
import random
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from tilth.data.example import Example
from tilth.seeds import derive

__all__ = ["SPLITS", "Item", "Skill", "Split", "final_answer", "normal", "split_of"]

Split = Literal["corpus", "train", "validation", "tuning", "testing"]
"""``corpus`` is what pre-training may see, ``train`` what tuning may see, ``validation`` chooses
thresholds, ``tuning`` and ``testing`` are the exams of tuning seeds and test seeds."""

SPLITS: tuple[Split, ...] = get_args(Split)
_SHARES = {"corpus": 0.40, "train": 0.25, "validation": 0.05, "tuning": 0.10, "testing": 0.20}
_ANSWER = re.compile(r"\banswer is:?\s+", re.IGNORECASE)


def split_of(key: str) -> Split:
    """The split that the argument set `key` belongs to, by its hash."""
    digest = hashlib.blake2b(f"split\x1f{key}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest, "big") / 2**64
    for split in SPLITS:
        point -= _SHARES[split]
        if point < 0:
            return split
    return SPLITS[-1]


def final_answer(text: str) -> str:
    """The final answer of a worked or bare text: what follows the last "answer is"."""
    return _ANSWER.split(text)[-1].strip()


def normal(text: str) -> str:
    """Text for comparison: lower case, single spaces, no closing full stop."""
    return " ".join(text.lower().split()).rstrip(".").rstrip()


@dataclass(frozen=True)
class Item:
    """One question with its truth.

    Attributes:
        id: ``skill/level/split/seed/index``.
        skill: Name of the skill.
        level: Difficulty, 1 is the easiest.
        prompt: The question or instruction, without any chat or "Question:" mark.
        answer: The canonical short answer.
        worked: A worked answer that ends in "The answer is X." or ``""`` where steps make no sense.
        key: The canonical argument set; its hash decides the split.
        meta: What the verifier or a study needs (tests of a function, slots, exposure, ...).
    """

    id: str
    skill: str
    level: int
    prompt: str
    answer: str
    worked: str
    key: str
    meta: dict[str, Any] = field(default_factory=dict)

    def example(self, form: Literal["worked", "bare"] = "worked") -> Example:
        """The item as a training example; falls back to the bare answer where none is worked."""
        answer = self.worked if form == "worked" and self.worked else self.answer
        return Example.pair(
            self.prompt, answer, method="almanac", skill=self.skill, level=self.level, item=self.id
        )


class Skill(ABC):
    """One ability.

    Class attributes:
        name: Its name, as in an exam's ``skills`` setting.
        levels: The levels that it has.
        chance: Score of the best constant or blind answer (for "saturated" and "at chance").
        answer_tokens: Upper bound of new tokens that an answer needs with the seedlings' tokenizer.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    chance: ClassVar[float] = 0.0
    answer_tokens: ClassVar[int] = 48

    def item(self, index: int, *, level: int, split: Split, seed: int = 0) -> Item:
        """Item `index`; the same on every machine.

        Args:
            index: 0, 1, 2, ...
            level: One of ``levels``.
            split: The split whose arguments it may use.
            seed: Names an independent sequence of items within the split.
        """
        for attempt in range(10_000):
            rng = random.Random(derive(seed, "item", self.name, level, split, index, attempt))
            prompt, answer, worked, key, meta = self.draw(rng, level)
            if split_of(key) == split:
                name = f"{self.name}/{level}/{split}/{seed}/{index}"
                return Item(name, self.name, level, prompt, answer, worked, key, meta)
        raise AssertionError(f"{self.name} level {level} has no arguments in {split}")

    @abstractmethod
    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str, str, dict[str, Any]]:
        """One random ``(prompt, answer, worked, key, meta)``; `rng` is the only randomness.

        ``key`` names the arguments alone, never the wording, so that a paraphrase of a training
        question cannot become an exam question.
        """

    def verify(self, item: Item, text: str) -> float:
        """The score of `text` as an answer to `item`, 0 to 1; exact match of the final answer."""
        return float(normal(final_answer(text)) == normal(item.answer))
