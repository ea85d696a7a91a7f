"""Deduplication: exact and near duplicates, each with the row that stays in its place.

Near duplicates are found with MinHash and locality-sensitive hashing (Broder 1997) from
`datasketch`, and every candidate is checked: a row is dropped only where the Jaccard similarity
of the two rows' word n-grams really reaches the threshold. The first of several stays. A pair
exactly at the threshold is found with a probability of at least 0.99.

    J(A, B) = |A & B| / |A | B|
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tilth.data.example import Example
from tilth.data.words import Part, ngrams, turns_of, words
from tilth.errors import DataError

__all__ = ["Deduplication", "Duplicate", "deduplicate"]

_PERMUTATIONS = 128  # datasketch's default; the estimate's standard error is then about 0.04
_RECALL = 0.99  # of pairs exactly at the threshold; far above it practically all are found
_SEED = 1  # of the permutations: a fixed part of the method, so that no seed changes what is kept


@dataclass(frozen=True)
class Duplicate:
    """A row that was dropped, and why.

    Attributes:
        index: Its position.
        id: Its id.
        kept_index: The position of the row that stays in its place.
        kept_id: That row's id.
        reason: ``exact`` (the same words) or ``near``.
        similarity: Jaccard similarity of the two rows, 1.0 for exact ones.
    """

    index: int
    id: str
    kept_index: int
    kept_id: str
    reason: Literal["exact", "near"]
    similarity: float


@dataclass(frozen=True)
class Deduplication:
    """What stays and what goes.

    Attributes:
        kept: Positions of the rows that stay, in order; for ``rows.select(...)``.
        dropped: One entry per row that goes.
    """

    kept: list[int] = field(default_factory=list)
    dropped: list[Duplicate] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Dropped rows by reason."""
        return dict(Counter(duplicate.reason for duplicate in self.dropped))


def deduplicate(
    examples: Sequence[Example],
    *,
    near: float | None = 0.7,
    size: int = 5,
    part: Part = "all",
) -> Deduplication:
    """Finds rows that say the same as an earlier one.

    Rows are compared by their words: case, punctuation and spacing do not count. Memory: about 2 kB
    a kept row for near duplicates, 100 bytes for exact ones; the rows themselves are read again
    when a candidate is checked.

    Args:
        examples: The rows, e.g. :class:`~tilth.data.read.Rows`.
        near: Least similarity of a near duplicate; None finds exact ones only. The default and
            that of `size` are those of StarCoder (Li et al. 2023, arXiv:2305.06161).
        size: Words of an n-gram. A row with fewer words is compared as a whole.
        part: ``"all"``, ``"prompt"`` (one row per question) or ``"answer"``. Rows without any word
            in that part are kept.

    Raises:
        DataError: `near` or `size` is out of range.

    Example:
        >>> rows = [Example.pair("Say hi.", "Hi!"), Example.pair("say  HI", "hi")]
        >>> deduplicate(rows).dropped[0].reason
        'exact'
    """
    if near is not None and not 0.05 <= near <= 1:
        raise DataError(f"the similarity {near} is outside 0.05..1", where="near")
    if size < 1:
        raise DataError(f"an n-gram of {size} words", where="size", fix="choose 1 or more")
    result = Deduplication()
    seen: dict[bytes, int] = {}
    index_of = _NearIndex(examples, near, size, part) if near is not None else None
    for index, example in enumerate(examples):
        tokens = _tokens(example, part)
        digest = hashlib.blake2b("\x1f".join(tokens).encode(), digest_size=16).digest()
        twin, similarity = seen.get(digest), 1.0
        reason: Literal["exact", "near"] = "exact"
        if tokens and twin is None and index_of is not None:
            reason = "near"
            twin, similarity = index_of.twin(index, _shingles(tokens, size))
        if not tokens or twin is None:
            seen.setdefault(digest, index)
            result.kept.append(index)
            continue
        kept_id = examples[twin].id
        result.dropped.append(Duplicate(index, example.id, twin, kept_id, reason, similarity))
    return result


class _NearIndex:
    """The MinHash signatures of the rows that stay."""

    def __init__(self, examples: Sequence[Example], near: float, size: int, part: Part) -> None:
        from datasketch import MinHash, MinHashLSH

        self.examples, self.near, self.size, self.part = examples, near, size, part
        self.signature = MinHash(num_perm=_PERMUTATIONS, seed=_SEED)
        self.index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(near))

    def twin(self, index: int, shingles: set[str]) -> tuple[int | None, float]:
        """The most similar kept row that reaches the threshold; without one, `index` is kept."""
        signature = self.signature.copy()
        signature.update_batch([shingle.encode() for shingle in shingles])
        best: tuple[float, int] = (0.0, 0)
        for candidate in self.index.query(signature):
            other = _shingles(_tokens(self.examples[candidate], self.part), self.size)
            similarity = len(shingles & other) / len(shingles | other)
            best = max(best, (similarity, -candidate))
        if best[0] >= self.near:
            return -best[1], best[0]
        self.index.insert(index, signature)
        return None, 0.0


def _bands(near: float) -> tuple[int, int]:
    """Bands and rows per band: as selective as they can be with the promised recall.

    Two rows of similarity J share a band with probability ``1 - (1 - J^rows)^bands``. A false
    candidate costs one check, but a missed one stays in the data.
    """
    rows = 1
    while rows < _PERMUTATIONS // 2:
        wider = rows + 1
        if 1 - (1 - near**wider) ** (_PERMUTATIONS // wider) < _RECALL:
            break
        rows = wider
    return _PERMUTATIONS // rows, rows


def _tokens(example: Example, part: Part) -> list[str]:
    return [word for text in turns_of(example, part) for word in words(text)]


def _shingles(tokens: list[str], size: int) -> set[str]:
    return set(ngrams(tokens, size)) or {" ".join(tokens)}
