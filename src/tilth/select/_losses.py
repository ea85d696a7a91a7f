"""Losses of a pool's texts under a model, a chunk at a time, each text scored once.

Conversations are put as plain question-and-answer text: a base model has read text and no chat
turns. The loss of a text is the mean of ``-log p`` over its tokens, natural logarithm.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tilth.data import Rows
from tilth.data.example import Example, Message
from tilth.models.engine import Engine, Score
from tilth.models.progress import row_bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Cutter", "Pair", "losses", "question_of", "text_of"]

Pair = tuple[str, str]
"""A text whose loss is asked for, behind what stands before it: ``(before, text)``."""

CHUNK = 2048  # rows in memory at a time; our choice: enough to sort into batches of one length
SLACK = 8  # tokens left free: a text cut between tokens may come out a little longer


def text_of(messages: Sequence[Message]) -> str:
    """A conversation as plain text.

    Example:
        >>> text_of([{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}])
        'Question: 2 + 2?\\nAnswer: 4'
    """
    marks = {"user": "Question: ", "assistant": "Answer: "}
    return "\n".join(marks.get(m["role"], "") + m["content"] for m in messages)


def question_of(example: Example) -> tuple[str, str]:
    """``(question, answer)``: the last answer, with its space, and all that stands before it."""
    last = max(i for i, m in enumerate(example.messages) if m["role"] == "assistant")
    before = text_of(example.messages[:last])
    start = f"{before}\nAnswer:" if before else "Answer:"
    return start, f" {example.messages[last]['content']}"


@dataclass
class Cutter:
    """Cuts texts so that they fit a model: a text at its end, what stands before it at its start.

    At most three quarters of the room go to the text, so that something stands before it. Both
    rules are our choice.

    Attributes:
        limit: Tokens that before and text may have together.
        tokenizer: Counts them; None (an endpoint) counts four characters as one token.
        cut: How many pairs were cut so far.
    """

    limit: int
    tokenizer: PreTrainedTokenizerBase | None
    cut: int = 0
    _room: int = field(init=False)

    def __post_init__(self) -> None:
        self._room = max(2, self.limit - SLACK)

    @classmethod
    def of(cls, engine: Engine, limit: int) -> Cutter:
        """The cutter for an engine: `limit`, or the model's context where that is shorter."""
        from tilth.models.local import LocalEngine

        if not isinstance(engine, LocalEngine):
            return cls(limit, None)
        window = getattr(engine.model.config, "max_position_embeddings", None) or limit
        return cls(min(limit, window), engine.tokenizer)

    def __call__(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs, those that are too long cut."""
        # No token is shorter than a byte: most texts are seen to fit without counting tokens.
        long = [i for i, (a, b) in enumerate(pairs) if len((a + b).encode()) > self._room]
        fitted = list(pairs)
        for i, before, text in zip(
            long,
            self._ends([pairs[i][0] for i in long]),
            self._ends([pairs[i][1] for i in long]),
            strict=True,
        ):
            if len(before) + len(text) <= self._room:
                continue
            kept = min(len(text), self._room if not before else self._room * 3 // 4)
            start = len(before) - (self._room - kept)
            first = before[start - 1] if start > 0 else 0
            fitted[i] = (pairs[i][0][first:], pairs[i][1][: text[kept - 1]])
            self.cut += 1
        return fitted

    def _ends(self, texts: list[str]) -> list[list[int]]:
        """Where each token of each text ends."""
        if not texts:
            return []
        if self.tokenizer is None:
            return [[*range(4, len(text) + 4, 4)] for text in texts]
        found = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        return [[end for _, end in offsets] for offsets in found["offset_mapping"]]


def losses(
    pool: Rows,
    rows: np.ndarray,
    ask: Callable[[Example], Sequence[Hashable]],
    score: Callable[[list], list[Score]],
    title: str,
) -> np.ndarray:
    """Mean losses of what is asked about each row.

    Args:
        pool: The N rows; read a chunk at a time.
        rows: int [M], which of them.
        ask: The A texts of a row, in a form that `score` takes; equal ones are scored once.
        score: Scores a list of them.
        title: Of the progress bar.

    Returns:
        float [N, A]; NaN for rows that were not asked for, and for texts without a token.
    """
    found: np.ndarray | None = None
    with row_bar(title, len(rows), sys.stderr.isatty()) as advance:
        for chunk in _chunks(rows):
            asked = [ask(pool[row]) for row in chunk]
            if found is None:
                found = np.full((len(pool), len(asked[0])), np.nan)
            unique = list(dict.fromkeys(itertools.chain.from_iterable(asked)))
            known = dict(zip(unique, score(unique), strict=True))
            for row, texts in zip(chunk, asked, strict=True):
                scores = [known[text] for text in texts]
                found[row] = [-s.mean if s.tokens else np.nan for s in scores]
            advance(len(chunk))
    return np.full((len(pool), 1), np.nan) if found is None else found


def _chunks(rows: np.ndarray) -> Iterator[list[int]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK].tolist()
