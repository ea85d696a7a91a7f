"""Two answers before a judge, in both orders; and what many such verdicts say together."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilth.data.example import Message
from tilth.models import Engine, Sampling

__all__ = ["PROMPT", "Verdict", "judged", "length_controlled"]

PROMPT = (
    "Two assistants answered the same instruction. Say which answer serves it better.\n\n"
    "Instruction:\n{instruction}\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}\n\n"
    "Reply with one letter, A or B."
)
"""What the judge is asked (our wording)."""

_LETTER = re.compile(r"\b([AB])\b")


@dataclass(frozen=True)
class Verdict:
    """What the judge said of one pair of answers.

    Attributes:
        preference: How far ours is preferred, 0 to 1, the mean of both orders; None where the judge
            failed in either: a missing value, no tie.
        first: The preference where ours stood first.
        second: Where it stood second.
        error: Why there is none.
    """

    preference: float | None
    first: float | None = None
    second: float | None = None
    error: str = ""


def judged(
    judge: Engine, triples: Sequence[tuple[str, str, str]], max_new_tokens: int = 16
) -> list[Verdict]:
    """The verdict on every ``(instruction, ours, reference)``, asked in both orders.

    A judge that tells log-probabilities is not made to write: its preference is the probability of
    the letter among the two, as in AlpacaEval 2's weighted annotator. Another one writes, and the
    first letter that stands alone counts; none is a failure.
    """
    asked: list[list[Message]] = []
    for instruction, ours, reference in triples:
        for a, b in ((ours, reference), (reference, ours)):
            text = PROMPT.format(instruction=instruction, a=a, b=b)
            asked.append([{"role": "user", "content": text}])
    if "score_chat" in judge.can:
        sides = [_with(turns, letter) for turns in asked for letter in "AB"]
        scores = [s.logprob for s in judge.score_chat(sides)]
        a_first: list[float | str] = [
            1 / (1 + math.exp(min(700.0, b - a)))
            for a, b in zip(scores[::2], scores[1::2], strict=True)
        ]
    else:
        said = judge.chat(asked, Sampling(max_new_tokens))
        a_first = [_read(c.text, c.error) for c in said]
    return [_verdict(*pair) for pair in zip(a_first[::2], a_first[1::2], strict=True)]


def _with(turns: list[Message], letter: str) -> list[Message]:
    return [*turns, {"role": "assistant", "content": letter}]


def _read(text: str, error: str) -> float | str:
    if error:
        return error
    found = _LETTER.search(text)
    return float(found.group(1) == "A") if found else f"no letter in {text[:40]!r}"


def _verdict(ours_first: float | str, theirs_first: float | str) -> Verdict:
    for side in (ours_first, theirs_first):
        if isinstance(side, str):
            return Verdict(None, error=side)
    first, second = float(ours_first), 1 - float(theirs_first)
    return Verdict((first + second) / 2, first, second)


def length_controlled(preferences: np.ndarray, lengths: np.ndarray, others: np.ndarray) -> float:
    """The win rate that answers of the reference's lengths would have had.

    A logistic regression ``logit P(ours) = a + b * tanh((len - len_ref) / sd)`` is fitted and read
    at equal lengths: ``1 / (1 + exp(-a))``. It is the length term of AlpacaEval 2's length-
    controlled win rate (Dubois et al. 2024, arXiv:2404.04475) without the difficulty of each
    instruction, which is known for its own 805 instructions only.

    Args:
        preferences: float [N], 0 to 1.
        lengths: Characters of our answers, [N].
        others: Characters of the reference's, [N].
    """
    gap = lengths.astype(float) - others
    spread = gap.std()
    features = np.stack([np.ones_like(gap), np.tanh(gap / spread) if spread else 0 * gap], axis=1)
    weights = np.zeros(2)
    ridge = np.diag([1e-3, 1e-3])  # keeps unanimous verdicts finite
    for _ in range(50):
        share = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (preferences - share) - ridge @ weights
        curve = features.T @ (features * (share * (1 - share))[:, None]) + ridge
        step = np.linalg.solve(curve, slope)
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    return float(1 / (1 + np.exp(-weights[0])))
