"""Scores of every turn of a pool: the mean digit of a scorer, or what the rows carry already."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tilth.data import Rows
from tilth.data.rating import Aspect, rating_prompt
from tilth.errors import DataError
from tilth.method import Work
from tilth.models.prompts import Prompts
from tilth.select._asking import Fitter, chunks, turns_of

__all__ = ["FIELDS", "Combine", "TurnScores", "Turns", "combined", "rated", "stored"]

Combine = Literal["product", "sum", "rank_average"]
Turns = Literal["sum", "mean"]

FIELDS: dict[Aspect, str] = {
    "complexity": "complexity_scores",
    "quality": "quality_scores",
}
"""Aspect -> field of a row's meta with one score per user turn, as Deita's files have it."""


@dataclass
class TurnScores:
    """One kind of score for the rows of a pool.

    Attributes:
        lists: Per row one number per turn; empty for a row that was not scored; NaN where the
            model's next tokens hold no digit.
        metrics: What happened, for the manifest.
    """

    lists: list[list[float]]
    metrics: dict[str, Any] = field(default_factory=dict)

    def missing(self) -> dict[int, str]:
        """Row -> why it has no score."""
        return {
            row: "no score: for a turn no digit is among the scorer's likeliest next tokens"
            for row, values in enumerate(self.lists)
            if values and not np.isfinite(values).all()
        }


def prompt_of(aspect: Aspect, ref: str, prompts: Prompts) -> Callable[[str, str], str]:
    """How a scorer is asked.

    A seedling as it ships learnt the compact turns; every scorer that was tuned, also one on top of
    a seedling, learnt the form of :func:`tilth.data.rating.rating_prompt`.
    """
    shipped = ref.startswith("seedling:") and "+" not in ref
    if prompts == "english" or (prompts == "auto" and not shipped):
        return lambda query, response: rating_prompt(aspect, query, response)
    from tilth.almanac.teaching import turn

    if aspect == "complexity":
        return lambda query, response: turn("rate_task", task=query)
    return lambda query, response: turn("rate_reply", task=query, reply=response)


def rated(
    pool: Rows,
    allowed: np.ndarray,
    ref: str,
    aspect: Aspect,
    work: Work,
    *,
    prompts: Prompts = "auto",
    max_length: int = 2048,
    batch_size: int = 32,
) -> TurnScores:
    """The mean digit that the scorer `ref` gives each turn: ``sum_k k p_k`` over its six digits.

    Answers lie in the step's scratch folder by their content: after a kill no turn is scored twice.

    Args:
        pool: The rows.
        allowed: int [M], which of them.
        ref: The scorer.
        aspect: What it scores.
        work: Scratch, ledger, screen.
        prompts: Which words it is asked in.
        max_length: Longest prompt in tokens; the response is shortened, never the prompt's end.
        batch_size: Turns in the scorer at once.
    """
    from tilth.models import engine
    from tilth.models.digits import expected_digit, next_reader
    from tilth.models.progress import row_bar

    scorer = engine(
        ref,
        ledger=work.ledger,
        cache=work.scratch / f"{aspect}.jsonl",
        batch_size=batch_size,
        progress=False,
    )
    reader = next_reader(scorer)
    fit = Fitter(scorer, prompt_of(aspect, ref, prompts), max_length, answer=1)
    lists: list[list[float]] = [[] for _ in range(len(pool))]
    known = Counter[str]()
    masses: list[float] = []
    turns = ((row, turn) for row in allowed.tolist() for turn in turns_of(pool[row]))
    with row_bar(f"{aspect} scores", len(allowed), sys.stderr.isatty()) as advance:
        last = -1
        for part in chunks(turns):
            found_NK = reader.next_tokens([fit(query, reply) for _, (query, reply) in part])
            digits_N = (~np.isnan(found_NK)).sum(axis=1)
            known["none"] += int((digits_N == 0).sum())
            known["some"] += int(((digits_N > 0) & (digits_N < found_NK.shape[1])).sum())
            masses += np.nansum(np.exp(found_NK), axis=1).tolist()
            for (row, _), score in zip(part, expected_digit(found_NK).tolist(), strict=True):
                lists[row].append(score)
                advance(int(row != last))
                last = row
    metrics = {
        "turns": len(masses),
        "shortened": fit.cut,
        "without_a_digit": known["none"],
        "digits_missing": known["some"],
        "digit_mass": float(np.mean(masses)) if masses else 0.0,
    }
    if known["none"] or known["some"]:
        work.say(
            f"{aspect}: of {len(masses)} turns {known['none']} have no digit among the scorer's "
            f"likeliest next tokens and no score, {known['some']} lack some digits"
        )
    if metrics["digit_mass"] < 0.5:
        work.say(
            f"{aspect}: the scorer gives digits only {metrics['digit_mass']:.0%} of its next "
            "token's probability; is it tuned to answer with a digit?"
        )
    return TurnScores(lists, metrics)


def stored(pool: Rows, allowed: np.ndarray, name: str) -> TurnScores:
    """The scores that rows carry in ``meta[name]``: a number, or one per turn, null for none.

    Raises:
        DataError: A row carries no such field, or something else in it.
    """
    lists: list[list[float]] = [[] for _ in range(len(pool))]
    for row in allowed.tolist():
        value = pool[row].meta.get(name)
        values = value if isinstance(value, list) else [value]
        if value is None or not values or not all(_is_score(v) for v in values):
            raise DataError(
                f"the row's {name!r} is {value!r} and not a list of numbers",
                where=f"{pool.path}, row {row}: {pool[row].id}",
                fix="name a scorer for it, or score the pool first with select.score",
            )
        lists[row] = [float("nan") if v is None else float(v) for v in values]
    return TurnScores(lists, {"turns": sum(map(len, lists))})


def _is_score(value: object) -> bool:
    if value is None:  # a turn that select.score got no digit for
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def combined(
    keys: Mapping[str, TurnScores],
    allowed: np.ndarray,
    *,
    combine: Combine,
    turns: Turns,
    where: Callable[[int], str],
) -> np.ndarray:
    """One score per row: keys are joined turn by turn, then turns are added or averaged.

    Ranks are those of whole rows: rank_average joins what the turns of each key come to.

    Args:
        keys: At least one kind of score by its name.
        allowed: int [M], the rows.
        combine: How keys are joined.
        turns: How turns are joined.
        where: Names a row in an error.

    Returns:
        float [N]; NaN for rows that are not allowed or have a turn without a score.

    Raises:
        DataError: The keys of a row differ in their number of turns.
    """
    rows = allowed.tolist()
    for row in rows:
        counts = {name: len(key.lists[row]) for name, key in keys.items()}
        if len(set(counts.values())) > 1:
            told = " and ".join(f"{count} {name}" for name, count in counts.items())
            raise DataError(
                f"the row has {told}: one of each per turn is needed",
                where=where(row),
                fix="score the pool again; lists of unequal length cannot be multiplied",
            )
    scores = np.full(len(next(iter(keys.values())).lists), np.nan)
    if combine == "rank_average":
        per_key = [
            np.array([_joined(key.lists[row], turns) for row in rows]) for key in keys.values()
        ]
        scores[allowed] = np.mean([_ranks(values) for values in per_key], axis=0)
        return scores
    join: Callable[..., np.ndarray] = np.prod if combine == "product" else np.sum
    for row in rows:
        scores[row] = _joined(join([key.lists[row] for key in keys.values()], axis=0), turns)
    return scores


def _joined(values: Iterable[float], turns: Turns) -> float:
    listed = list(values)
    if not listed:
        return float("nan")
    return float(np.sum(listed) if turns == "sum" else np.mean(listed))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks as shares, 0 for the lowest and 1 for the highest; equal values share their mean."""
    ranks = np.full(len(values), np.nan)
    known = np.flatnonzero(np.isfinite(values))
    _, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    middle = ends - (count + 1) / 2
    ranks[known] = middle[place] / max(1, len(known) - 1)
    return ranks
