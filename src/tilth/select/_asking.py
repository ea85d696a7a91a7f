"""Asking a model about every row of a pool: prompts that fit, chunk by chunk, scores with holes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from tilth.data import Rows
from tilth.data.example import Example, Message
from tilth.errors import DataError, EngineError
from tilth.models import Completion, Engine, Sampling
from tilth.models.progress import row_bar
from tilth.select._selector import Ranking, by_score

__all__ = ["Fitter", "answers_to_each", "chunks", "rank_scored", "scored_rows", "turns_of"]

_T = TypeVar("_T")

CHUNK = 4096  # texts in memory at a time; our choice, as in the index of a pool
UNSCORED = 0.1  # greatest share of rows without a score; our choice, as for unusable rows of a file


def turns_of(row: Example) -> list[tuple[str, str]]:
    """Per user turn its text and the reply to it, ``""`` where there is none."""
    turns: list[tuple[str, str]] = []
    for message in row.messages:
        if message["role"] == "user":
            turns.append((message["content"], ""))
        elif message["role"] == "assistant" and turns and not turns[-1][1]:
            turns[-1] = (turns[-1][0], message["content"])
    return turns


class Fitter:
    """Makes a prompt of a query and a response that fits the model, by shortening these alone.

    The response is shortened first, then the query, each at its end; what the prompt says before,
    between and behind them stays whole, the label of the score above all.

    Args:
        engine: The model; of an endpoint, whose tokenizer is not known, tokens are estimated.
        build: The prompt of a query and a response.
        limit: Tokens of prompt and answer, at most.
        answer: Tokens to leave for the answer.

    Attributes:
        cut: How many prompts had to be shortened.
    """

    def __init__(
        self, engine: Engine, build: Callable[[str, str], str], limit: int, answer: int
    ) -> None:
        from tilth.models.room import room

        self.cut = 0
        self._build = build
        self._left = lambda text: room(engine, _user(text), limit) - answer
        self._free = self._left(build("", ""))
        if self._free < 1:
            raise EngineError(
                f"the prompt alone does not fit into {limit} tokens or the model's window",
                where=engine.reference,
                fix="raise max_length, or use a model with a longer context",
            )

    def __call__(self, query: str, response: str = "") -> list[Message]:
        """The conversation to ask."""
        # No token is shorter than a byte: most prompts are seen to fit without counting tokens.
        if len(query.encode()) + len(response.encode()) > self._free:
            whole = query, response
            if self._left(self._build(query, "")) < 0:
                response = ""
                query = _longest(query, lambda text: self._left(self._build(text, "")) >= 0)
            else:
                response = _longest(
                    response, lambda text: self._left(self._build(query, text)) >= 0
                )
            self.cut += (query, response) != whole
        return _user(self._build(query, response))


def _user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _longest(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of `text` that fits."""
    if fits(text):
        return text
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[:middle]) else (low, middle)
    return text[:low]


def chunks(items: Iterable[_T], size: int = CHUNK) -> Iterator[list[_T]]:
    """`items` in lists of `size`, the last one shorter."""
    part: list[_T] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def answers_to_each(
    engine: Engine,
    pool: Rows,
    allowed: np.ndarray,
    ask: Callable[[Example], list[list[Message]]],
    sampling: Sampling,
) -> Iterator[tuple[int, Completion]]:
    """Row and answer, for every question about every allowed row."""
    with row_bar(f"asked {engine.reference}", len(allowed), sys.stderr.isatty()) as advance:
        for rows in chunks(allowed.tolist()):
            asked = [(row, question) for row in rows for question in ask(pool[row])]
            said = engine.chat([question for _, question in asked], sampling)
            yield from zip((row for row, _ in asked), said, strict=True)
            advance(len(rows))


def rank_scored(
    scores: np.ndarray,
    allowed: np.ndarray,
    name: str,
    why: Mapping[int, str],
    **more: Any,
) -> Ranking:
    """The order of a score of which some rows have none; those cannot be chosen.

    Args:
        scores: float [N], NaN where there is none.
        allowed: int [M].
        name: What the score is.
        why: Row -> why it has no score.
        more: Further fields of :class:`Ranking`.

    Raises:
        DataError: More than a tenth of the rows have no score.
    """
    scored = scored_rows(scores, allowed, name, why)
    ranking = by_score(scores, scored, name, **more)

    def reason(row: int, kept: bool) -> str:
        return why[row] if row in why else told(row, kept)

    told = ranking.reason
    return replace(ranking, reason=reason)


def scored_rows(
    scores: np.ndarray, allowed: np.ndarray, name: str, why: Mapping[int, str]
) -> np.ndarray:
    """The allowed rows that have a score.

    Raises:
        DataError: More than a tenth have none.
    """
    scored: np.ndarray = allowed[np.isfinite(scores[allowed])]
    missing = len(allowed) - len(scored)
    if missing > UNSCORED * len(allowed):
        row, reason = next(iter(why.items()), (int(allowed[0]), "unknown"))
        raise DataError(
            f"{missing} of {len(allowed)} rows have no {name}",
            where=f"row {row}, for one: {reason}",
            fix="the model does not answer in the form that was asked for: use another one",
        )
    return scored
