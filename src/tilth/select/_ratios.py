"""The two losses of every answer, behind its question and alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, cast

import numpy as np

from tilth.data import Rows
from tilth.data.example import Example, Message
from tilth.models.engine import Engine, Score
from tilth.select._losses import Cutter, losses, question_of, text_of

__all__ = ["answer_losses"]

Turns = tuple[tuple[str, str], ...]
"""A conversation as ``(role, content)`` pairs, which can be compared and hashed."""


def answer_losses(
    pool: Rows,
    rows: np.ndarray,
    engine: Engine,
    *,
    form: Literal["plain", "chat"],
    max_length: int,
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Mean losses of the last answers.

    Args:
        pool: The N rows.
        rows: int [M], which of them.
        engine: Scores.
        form: How rows are put to the model.
        max_length: Longest text in tokens.

    Returns:
        Loss behind the question [N] and alone [N], how many texts were cut, and to how many tokens.
    """
    fit = Cutter.of(engine, max_length)

    def plain(row: Example) -> list[Hashable]:
        before, answer = fit([question_of(row)])[0]
        return [(before, answer), ("", answer)]

    def chat(row: Example) -> list[Hashable]:
        last = max(i for i, m in enumerate(row.messages) if m["role"] == "assistant")
        before, answer = fit([(text_of(row.messages[:last]), row.messages[last]["content"])])[0]
        earlier: Turns = tuple((m["role"], m["content"]) for m in row.messages[:last])
        if before != text_of(row.messages[:last]):
            earlier = (("user", before),)  # the end of what was asked, as one turn
        alone: Turns = (("assistant", answer),)
        return [(*earlier, *alone), alone]

    def score_chat(conversations: list[Turns]) -> list[Score]:
        return engine.score_chat(
            [
                [cast("Message", {"role": role, "content": content}) for role, content in turns]
                for turns in conversations
            ]
        )

    asks: dict[str, tuple[Callable[[Example], list[Hashable]], Callable[[list[Any]], list[Score]]]]
    asks = {"plain": (plain, engine.score), "chat": (chat, score_chat)}
    ask, score = asks[form]
    found = losses(pool, rows, ask, score, "losses")
    return found[:, 0], found[:, 1], fit.cut, fit.limit
