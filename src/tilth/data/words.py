"""Words, n-grams and the text of an example: what deduplication and decontamination compare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from tilth.data.example import Example

__all__ = ["Part", "ngrams", "turns_of", "words"]

Part = Literal["all", "prompt", "answer"]
"""Which turns of an example are compared: every turn, the user's, or the assistant's."""

# Chinese and Japanese do not put spaces between words, so each of their characters is a word.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")


def words(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation, mark-up and spacing.

    Example:
        >>> words("Don't  PANIC: it's 42.")
        ['don', 't', 'panic', 'it', 's', '42']
    """
    return _WORD.findall(text.casefold())


def ngrams(tokens: list[str], size: int) -> Iterator[str]:
    """Every run of `size` words, joined by single spaces; none where there are fewer words."""
    for start in range(len(tokens) - size + 1):
        yield " ".join(tokens[start : start + size])


def turns_of(example: Example, part: Part = "all") -> list[str]:
    """The texts of the turns that `part` names; a pair's two answers count as answers."""
    role = {"prompt": "user", "answer": "assistant"}.get(part)
    found = [turn["content"] for turn in example.messages if role in (None, turn["role"])]
    if part != "prompt":
        found += [text for text in (example.chosen, example.rejected) if text]
    return found
