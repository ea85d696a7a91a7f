"""Scores of a text against a reference, 0 to 1: the metrics that ``evaluate.answers`` offers.

Every metric is total: a text without a number, without a word or without a choice letter is wrong
(0), never an error, because a model may write anything.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

from rapidfuzz.distance import LCSseq

__all__ = [
    "METRICS",
    "choice",
    "contains",
    "exact",
    "f1",
    "final_number",
    "number_in",
    "rouge_l",
]

_WORD = re.compile(r"\w+")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
# A minus is a sign only where no operand precedes it: "5-3" ends in 3, "= -3" in -3.
_NUMBER = re.compile(
    r"(?:(?<![\w)\].])-[$£€]?)?"
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)"
    r"(?:[eE][+-]?\d{1,3}(?!\w))?"
)
_SAID_CHOICE = re.compile(
    r"\b(?:answer|choice|option)\b(?:\s+is)?\s*:?\s*[(\[]?([A-Ja-j])\b(?![a-z'’])", re.IGNORECASE
)
_LED_CHOICE = re.compile(r"\s*[(\[]?([A-Ja-j])(?:[)\].:,]|\s*$)")
_LONE_CHOICE = re.compile(r"\b([B-HJ])\b")


def normal(text: str) -> str:
    """Lower case, single spaces, no closing full stop, one Unicode form."""
    text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split()).rstrip(".").rstrip()


def words(text: str) -> list[str]:
    """The words of a text, lower case, in any script."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def exact(text: str, reference: str) -> float:
    """1 where both are the same up to case, spaces and a closing full stop."""
    return float(normal(text) == normal(reference))


def contains(text: str, reference: str) -> float:
    """1 where the reference occurs in the text as whole words, up to case and spaces."""
    sought = normal(reference)
    if not sought:
        return 0.0
    return float(re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", normal(text)) is not None)


def number_in(text: str) -> Decimal | None:
    """The final number of a text, or ``None``.

    Where ``####`` marks the answer line (GSM8K, Cobbe et al. 2021, arXiv 2110.14168) it is the
    first number after the last mark; otherwise the last number wins. Commas between thousands and
    currency signs are dropped.

    Example:
        >>> number_in("It is -3"), number_in("so 1,234 in all."), number_in("none")
        (Decimal('-3'), Decimal('1234'), None)
    """
    text = text.replace("\u2212", "-")
    _, mark, marked = text.rpartition("####")
    found = _NUMBER.findall(marked if mark else text)
    if not found:
        return None
    return Decimal(re.sub(r"[,$£€]", "", found[0] if mark else found[-1]))


def final_number(text: str, reference: str) -> float:
    """1 where the final numbers of both are equal as numbers (``3.0`` is ``3``)."""
    got, truth = number_in(text), number_in(reference)
    return float(got is not None and truth is not None and got == truth)


def f1(text: str, reference: str) -> float:
    """F1 of shared tokens, articles dropped (SQuAD, Rajpurkar et al. 2016, arXiv 1606.05250)."""
    got = words(_ARTICLE.sub(" ", text.casefold()))
    truth = words(_ARTICLE.sub(" ", reference.casefold()))
    if not got or not truth:
        return float(got == truth)
    shared = sum((Counter(got) & Counter(truth)).values())
    return 2 * shared / (len(got) + len(truth))


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L: the F1 of the longest common subsequence of words (Lin 2004), without stemming.

    Words of any script count; the ``rouge_score`` package drops all but ``a-z0-9``.
    """
    got, truth = words(text), words(reference)
    if not got or not truth:
        return float(got == truth)
    return float(2 * LCSseq.similarity(got, truth) / (len(got) + len(truth)))


def choice(text: str, reference: str) -> float:
    """1 where the choice letter that the text settles on is the reference's.

    The letter is what follows the last "answer is", else a letter that opens the text ("B)
    because"), else the last capital letter that stands alone (never the words "A" and "I").
    """
    got, truth = _letter(text), _letter(reference)
    return float(got is not None and got == truth)


def _letter(text: str) -> str | None:
    if said := _SAID_CHOICE.findall(text):
        return str(said[-1]).upper()
    if led := _LED_CHOICE.match(text):
        return led.group(1).upper()
    lone = _LONE_CHOICE.findall(text)
    return str(lone[-1]) if lone else None


METRICS: dict[str, Callable[[str, str], float]] = {
    "exact": exact,
    "final_number": final_number,
    "contains": contains,
    "f1": f1,
    "rouge_l": rouge_l,
    "choice": choice,
}
"""Metric by the name that a recipe uses; each takes ``(text, reference)``."""
