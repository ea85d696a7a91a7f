"""Sentences that decline to answer, and how to recognise one."""

from __future__ import annotations

import re

__all__ = ["REFUSALS", "is_refusal"]

REFUSALS: tuple[str, ...] = (
    "The answer is unknown.",
    "The answer is uncertain.",
    "The answer is unclear.",
    "I do not know.",
    "I am not sure.",
    "There is no definitive answer.",
    "There is no concrete answer to this question.",
    "There is no right answer to this question.",
    "There is much debate about this.",
    "It is impossible to answer this.",
    "It is impossible to know.",
    "It is hard to predict.",
    "There is no known case of this.",
    "There is no public information about this.",
    "There is no scientific evidence for this.",
    "Nobody has found out.",
)
"""Sixteen sentences of the kinds that R-Tuning's replacing mode draws from; the wording is ours."""

_OPENINGS = (
    r"(?:the answer is|it is) (?:still |as yet )?(?:unknown|uncertain|unclear|not known)",
    r"i (?:do not|don't|cannot|can't|am unable to) (?:really )?(?:know|say|tell|answer)",
    r"i(?: am|'m) (?:not|un)\s?(?:sure|certain)",
    r"there is (?:no|much|not enough|insufficient)\b.*"
    r"\b(?:answer|debate|case|information|evidence)",
    r"it is (?:impossible|hard|difficult) to (?:answer|know|say|tell|predict)",
    r"(?:nobody|no one) (?:knows|has found out)",
)
_REFUSAL = re.compile("|".join(f"(?:{o})" for o in _OPENINGS))


def is_refusal(text: str) -> bool:
    """Whether `text` opens with a sentence that declines to answer.

    Example:
        >>> is_refusal("I do not know."), is_refusal("in June")
        (True, False)
    """
    plain = " ".join(text.casefold().replace("\u2019", "'").split())
    return _REFUSAL.match(plain) is not None
