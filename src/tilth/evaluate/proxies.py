"""What can be said of answers without a judge: ends, lengths, repetition, stray tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tilth.models import Completion

__all__ = ["distinct", "echoes", "proxies", "repetition", "restarts"]

_USER = ("<|user|>", "<|A|>", "[INST]", "### Instruction", "User:", "Human:", "Question:")
_ASSISTANT = ("<|assistant|>", "<|B|>", "[/INST]", "### Response", "Assistant:", "Answer:")
_RESTART = re.compile(r"^\s*(?:" + "|".join(map(re.escape, _USER)) + ")", re.MULTILINE)
_ECHO = re.compile(r"^\s*(?:" + "|".join(map(re.escape, _ASSISTANT)) + ")", re.MULTILINE)


def restarts(text: str) -> bool:
    """Whether a line of the answer begins with a tag that opens a user's turn.

    Tags that are special tokens of the model's vocabulary are no part of a decoded text and cannot
    be seen here.
    """
    return _RESTART.search(text) is not None


def echoes(text: str) -> bool:
    """Whether a line of the answer begins with the assistant's own tag."""
    return _ECHO.search(text) is not None


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n (Li et al. 2016, arXiv:1510.03055): different n-grams of words per n-gram, of all
    texts together; 0 where there are none."""
    grams = [g for text in texts for g in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str, n: int = 4) -> float:
    """The share of a text's n-grams of words that it has had before; 0 for a short text.

    Example:
        >>> repetition("a b a b a b", 2)
        0.6
    """
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def proxies(said: Sequence[Completion]) -> dict[str, float]:
    """All of them, for a list of answers.

    Returns:
        ``answers``; ``ended``: the share that ended within the budget; ``cap_hits``: how many did
        not; ``tokens`` and ``words``: mean length; ``distinct_1``, ``distinct_2``, ``repetition``;
        ``restarts``, ``echoes`` and ``empty``: shares of answers.
    """
    texts = [c.text for c in said]
    count = max(1, len(said))
    return {
        "answers": len(said),
        "ended": sum(c.finish == "stop" for c in said) / count,
        "cap_hits": sum(c.finish == "length" for c in said),
        "tokens": sum(c.new_tokens for c in said) / count,
        "words": sum(len(t.split()) for t in texts) / count,
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "repetition": sum(map(repetition, texts)) / count,
        "restarts": sum(map(restarts, texts)) / count,
        "echoes": sum(map(echoes, texts)) / count,
        "empty": sum(not t.strip() for t in texts) / count,
    }


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
