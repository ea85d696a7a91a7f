"""Novelty of a text against many others by ROUGE-L, fast enough for pools of tens of thousands."""

from __future__ import annotations

import re

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

__all__ = ["NoveltyIndex"]

_WORD = re.compile(r"\w+")
_FIRST = (
    0x10000  # words become code points above the surrogates, so that strings compare at C speed
)


class NoveltyIndex:
    """Texts to compare with: ROUGE-L F1 = 2 LCS(a, b) / (|a| + |b|) over lower-case words.

    Example:
        >>> index = NoveltyIndex()
        >>> index.add("Name the colour of rye.")
        >>> index.nearest("Name the colour of oats.")
        (0.8, 0)
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._texts: list[str] = []
        self._known: set[str] = set()
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Adds a text; its index is the number of texts before it."""
        coded = self._coded(text)
        self._texts.append(coded)
        self._known.add(coded)
        self._lengths.append(len(coded))

    def __contains__(self, text: str) -> bool:
        """Whether a text with the same words in the same order is known."""
        return self._coded(text) in self._known

    def nearest(self, text: str, above: float = 0.0) -> tuple[float, int]:
        """The highest ROUGE-L of `text` with any known text, and the index of that text.

        Args:
            text: The text to judge.
            above: Texts whose length alone keeps them at or below this are not compared.

        Returns:
            ``(score, index)``, or ``(0.0, -1)`` where nothing scores above `above`.
        """
        coded = self._coded(text)
        lengths = np.asarray(self._lengths, float)
        # LCS <= min length, so 2 min / (sum) bounds the score from above.
        bound = 2 * np.minimum(lengths, len(coded)) / np.maximum(lengths + len(coded), 1)
        near = np.flatnonzero(bound > above)
        if not len(near):
            return 0.0, -1
        texts = [self._texts[i] for i in near]
        shared = cdist([coded], texts, scorer=LCSseq.similarity, dtype=np.int32)[0]
        scores = 2 * shared / (lengths[near] + len(coded))
        best = int(scores.argmax())
        return (float(scores[best]), int(near[best])) if scores[best] > above else (0.0, -1)

    def _coded(self, text: str) -> str:
        words = _WORD.findall(text.casefold())
        return "".join(chr(_FIRST + self._codes.setdefault(w, len(self._codes))) for w in words)
