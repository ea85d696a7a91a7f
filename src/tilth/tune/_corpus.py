"""Tokenised conversations in two flat arrays, each token with the target it must predict.

Everything about a row is settled here, once: which tokens it has, which of them are targets, and
whether it may be trained on at all. A training step then only copies slices. Memory is 8 bytes per
token, whatever the number of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["IGNORED", "Corpus", "Encoded", "Refused", "gather"]

IGNORED = -100
"""The label of a position whose next token is no target; the value that PyTorch's loss ignores."""


Encoded = tuple[Sequence[int], Sequence[bool]]
"""Token ids of a row, and for each whether it is a target."""


@dataclass(frozen=True)
class Refused:
    """A row that cannot be trained on.

    Attributes:
        index: Its position among the rows.
        reason: Why, in one sentence.
    """

    index: int
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Rows back to back.

    Attributes:
        tokens: Token ids of all rows, int32 ``[K]``.
        labels: For each token the id that comes after it where that one is a target, else
            :data:`IGNORED`; int32 ``[K]``. The last token of a row predicts nothing.
        starts: Where each row begins, int64 ``[rows + 1]``.
    """

    tokens: np.ndarray
    labels: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 ``[rows]``."""
        return np.diff(self.starts)

    @property
    def targets(self) -> int:
        """Target tokens of all rows."""
        return int(np.count_nonzero(self.labels != IGNORED))

    def digest(self) -> str:
        """The hash of all tokens, labels and row boundaries."""
        hashed = hashlib.sha256()
        for part in (self.tokens, self.labels, self.starts):
            hashed.update(np.ascontiguousarray(part).data)
        return hashed.hexdigest()


def gather(
    encoded: Iterable[Encoded | str],
    *,
    max_length: int,
    vocabulary: int,
) -> tuple[Corpus, list[Refused]]:
    """Joins encoded rows into a corpus and sets aside those that cannot be trained on.

    A row longer than `max_length` is set aside whole: cutting it could remove its answer, or leave
    half of one as the target.

    Args:
        encoded: Each row, or the reason why it could not be encoded.
        max_length: The longest row that is kept, in tokens.
        vocabulary: Number of rows of the model's embedding; ids must lie below it.

    Returns:
        The corpus of the rows that were kept, and what was refused.
    """
    tokens: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    refused: list[Refused] = []
    for index, given in enumerate(encoded):
        if isinstance(given, str):
            refused.append(Refused(index, given))
            continue
        row = np.asarray(given[0], dtype=np.int32)
        target = np.asarray(given[1], dtype=bool)
        reason = _refusal(row, target, max_length, vocabulary)
        if reason:
            refused.append(Refused(index, reason))
            continue
        label = np.full(len(row), IGNORED, dtype=np.int32)
        label[:-1] = np.where(target[1:], row[1:], IGNORED)
        tokens.append(row)
        labels.append(label)
    starts = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in tokens], out=starts[1:])
    empty = [np.zeros(0, dtype=np.int32)]
    return Corpus(np.concatenate(tokens or empty), np.concatenate(labels or empty), starts), refused


def _refusal(row: np.ndarray, target: np.ndarray, max_length: int, vocabulary: int) -> str:
    """Why a row cannot be trained on, or ``""``."""
    if len(row) > max_length:
        return f"{len(row)} tokens are more than max_length = {max_length}"
    if not target[1:].any():
        return "no target tokens: no assistant turn has any content to learn"
    if row.max() >= vocabulary or row.min() < 0:
        return f"token id {int(row.max())} lies outside the model's vocabulary of {vocabulary}"
    return ""
