"""Questions with the answers that count as right, and how an answer is compared with them.

A row's question is its last user turn. Its right answers are ``meta.answers`` (or ``meta.answer``)
where that is a list, else its last assistant turn, else that one value, a number for instance; a
row may have none. ``meta.choices`` (a list) makes it a choice: the right answer is then a letter,
the text of a choice, or its place as a number from 0. ``meta.context`` is read before the question,
``meta.task`` names what it belongs to where several tasks are mixed. ``meta.answerable: false``
marks a question that nobody can answer; ``meta.pair`` is shared by such a question and its
answerable twin.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from tilth.data.example import Example
from tilth.errors import DataError

__all__ = ["MATCHERS", "Match", "Question", "is_right", "questions_in"]

Match = Literal["words", "exact", "official"]
"""How an answer is compared: see :data:`MATCHERS`."""

LETTERS = "ABCDEFGHIJ"
_ARTICLES = re.compile(r"(?<!\w)(?:a|an|the)(?!\w)")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: ``number/hash``: the row's place in its file and the hash of its content.
        text: The question itself.
        golds: Answers that count as right; of a choice question, letters. Empty: none is known.
        choices: The texts behind the letters A, B, ...; empty for an open question.
        context: What is read before the question.
        task: The task that it belongs to, where several are mixed.
        answerable: Whether anybody could answer it.
        pair: The same for an unanswerable question and its answerable twin; empty without one.
        meta: All that the row says about itself.
    """

    id: str
    text: str
    golds: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    context: str = ""
    task: str = ""
    answerable: bool = True
    pair: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the choices."""
        return tuple(LETTERS[: len(self.choices)])

    @property
    def body(self) -> str:
        """The question and its lettered choices, one per line."""
        listed = (f"{a}. {c}" for a, c in zip(self.letters, self.choices, strict=True))
        return "\n".join([self.text, *listed])

    @property
    def asked(self) -> str:
        """All that is asked: context, question and lettered choices."""
        return f"{self.context}\n{self.body}" if self.context else self.body


def questions_in(rows: Iterable[Example], where: str) -> list[Question]:
    """The questions of rows that were read with ``require="prompt"``.

    Args:
        rows: The rows.
        where: The file, for errors.

    Raises:
        DataError: Choices that cannot be used, or an answer that is none of them.
    """
    return [_question(number, row, where) for number, row in enumerate(rows)]


def _question(number: int, row: Example, where: str) -> Question:
    meta = row.meta
    listed = _listed(row)
    choices = tuple(str(c) for c in meta.get("choices") or ())
    if choices:
        if not 2 <= len(choices) <= len(LETTERS):
            raise DataError(
                f"a choice question has {len(choices)} choices",
                where=f"{where}, row {number + 1}",
                fix=f"give 2 to {len(LETTERS)}",
            )
        golds = tuple(_letter(gold, choices, f"{where}, row {number + 1}") for gold in listed)
    else:
        golds = tuple(str(gold) for gold in listed)
    return Question(
        id=f"{number}/{row.id}",
        text=row.prompt,
        golds=tuple(gold for gold in golds if gold.strip()),
        choices=choices,
        context=str(meta.get("context") or ""),
        task=str(meta.get("task") or meta.get("relation") or ""),
        answerable=meta.get("answerable") is not False,
        pair=str(meta.get("pair") or ""),
        meta=meta,
    )


def _listed(row: Example) -> list[Any]:
    """The right answers as the row gives them; empty where it gives none."""
    given = [row.meta[k] for k in ("answers", "answer") if row.meta.get(k) not in (None, "")]
    for value in given:
        if isinstance(value, list) and value:
            return value
    if row.answer:
        return [row.answer]
    return [value for value in given if not isinstance(value, list)][:1]


def _letter(gold: Any, choices: tuple[str, ...], where: str) -> str:
    """The letter of a right answer: its own, that of the choice's text, or that of its place."""
    if isinstance(gold, int) and 0 <= gold < len(choices):
        return LETTERS[gold]
    gold = str(gold)
    if gold.strip() in tuple(LETTERS[: len(choices)]):
        return gold.strip()
    same = [n for n, choice in enumerate(choices) if _normal(choice) == _normal(gold)]
    if len(same) != 1:
        raise DataError(
            f"the answer {gold!r} is none of the {len(choices)} choices",
            where=where,
            fix="give the letter of the choice, its text as it stands, or its place from 0",
        )
    return LETTERS[same[0]]


def _normal(text: str) -> str:
    """Lower case, no articles, single spaces, no closing full stop, one Unicode form."""
    text = _ARTICLES.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.split()).rstrip(".").rstrip()


def _words(text: str, gold: str) -> bool:
    sought = _normal(gold)
    return bool(sought) and bool(
        re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", _normal(text)) is not None
    )


def _exact(text: str, gold: str) -> bool:
    return bool(_normal(gold)) and _normal(text) == _normal(gold)


def _official(text: str, gold: str) -> bool:
    return gold in text


MATCHERS: dict[Match, Callable[[str, str], bool]] = {
    "words": _words,
    "exact": _exact,
    "official": _official,
}
"""``words``: the gold answer occurs in the text as whole words, up to case, articles and spaces.
``exact``: both are the same in this sense. ``official``: the gold answer is a substring, case and
all, which counts "Iran" in "Iranian" (Zhang et al. 2024, as their code does it)."""


def is_right(text: str, question: Question, match: Match = "words") -> bool | None:
    """Whether `text` answers `question`; None where no right answer is known.

    A choice is right where it is a right letter, never by substring.

    Example:
        >>> is_right("an Iranian", Question("0", "Where from?", ("Iran",)))
        False
    """
    if not question.golds:
        return None
    if question.choices:
        return text in question.golds
    return any(MATCHERS[match](text, gold) for gold in question.golds)
