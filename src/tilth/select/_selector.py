"""The one interface of all selections: rank the pool, then take the first rows that may be taken.

A selection says in :meth:`Selector.rank` which rows it prefers, and why. What all of them need
happens here: rows that repeat a held-out item are found and left out, no source gets more than its
cap, more rows than there are is said with both numbers, and every row of the pool gets a line in
``selection.jsonl`` that tells why it was kept or left.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from tilth.data import Rows, decontaminate, read
from tilth.data.forms import Require
from tilth.errors import DataError
from tilth.method import DataRef, Method, Outcome, Work
from tilth.select._written import write_selection

__all__ = ["Ranking", "Selector", "by_score", "read_beside"]


@dataclass(frozen=True)
class Ranking:
    """Which rows a selection prefers, best first, as deep as somebody asks.

    Attributes:
        first: ``first(n)`` gives the first n rows of the preference order as int [n], fewer where
            the order ends; ``first(n)`` is the beginning of ``first(m)`` for every m > n.
        reason: Says for a row's index, and whether it was kept, why.
        scores: float [N], what the order goes by, where one number does.
        name: What the scores are, stored under ``meta["scores"]`` of a kept row.
        details: Further fields of a row's line in ``selection.jsonl``: ``query`` and ``round``,
            or ``similar_to`` (the index of the chosen row) and ``similarity``.
        vectors: float [N, d] unit rows, where the selection has embeddings: the report draws its
            map from them.
        queries: The text of every query by the name that ``details`` give it as ``query``, for the
            report.
        metrics: Figures of the method's own for the manifest.
        notes: What could not be measured or should be known, in words.
    """

    first: Callable[[int], np.ndarray]
    reason: Callable[[int, bool], str]
    scores: np.ndarray | None = None
    name: str = ""
    details: Callable[[int], Mapping[str, Any]] = lambda row: {}
    vectors: np.ndarray | None = None
    queries: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def by_score(
    scores: np.ndarray,
    allowed: np.ndarray,
    name: str,
    *,
    lowest: bool = False,
    start: int = 0,
    **more: Any,
) -> Ranking:
    """The order of a score: highest first, equal scores in the order of the pool.

    Args:
        scores: float [N], finite for every allowed row.
        allowed: int [M], the rows that may be chosen.
        name: What the score is.
        lowest: The lowest score first instead.
        start: How many rows of the order to pass over, for windows such as a middle part.
        more: Further fields of :class:`Ranking`.

    Raises:
        DataError: The score of an allowed row is not a number; names the rows.
    """
    bad = allowed[~np.isfinite(scores[allowed])]
    if len(bad):
        raise DataError(
            f"{len(bad)} rows have no {name}: rows {', '.join(map(str, bad[:5]))}",
            where=name,
            fix="look at these rows; an empty answer or a broken model gives no number",
        )
    best = scores[allowed] if lowest else -scores[allowed]
    order = allowed[np.argsort(best, kind="stable")]
    rank = np.full(len(scores), -1)
    rank[order] = np.arange(1, len(order) + 1)

    def reason(row: int, kept: bool) -> str:
        return f"{name} {scores[row]:.4g}: rank {rank[row]} of {len(order)}"

    more = {"reason": reason, **more}
    return Ranking(lambda n: order[start : start + n], scores=scores, name=name, **more)


def read_beside(ref: str, work: Work, require: Require = "answer") -> Rows:
    """A further input of a selection, such as its queries.

    Its unusable rows are added to those of the pool in ``rejected.jsonl``.

    Raises:
        DataError: It is empty, or too many of its rows are unusable.
    """
    rows = read(ref, require=require, say=work.say)
    with (work.folder / "rejected.jsonl").open("a", encoding="utf-8") as lines:
        for rejection in rows.rejections():
            lines.write(json.dumps(asdict(rejection), ensure_ascii=False) + "\n")
    return rows


class Selector(Method):
    """Base of all selections; a subclass adds its settings and :meth:`rank`."""

    verb: ClassVar = "select"
    kind: ClassVar = "rows"

    pool: DataRef = Field(description="The pool to choose from.")
    count: int = Field(1000, ge=1, description="Rows to choose.")
    source: str = Field("source", description="Meta field that names a row's source.")
    caps: dict[str, float] = Field({}, description="Largest share of count by source.")
    held_out: DataRef | None = Field(None, description="Test items that no chosen row may repeat.")

    @field_validator("caps")
    @classmethod
    def _shares(cls, caps: dict[str, float]) -> dict[str, float]:
        for name, share in caps.items():
            if not 0 <= share <= 1:
                raise ValueError(f"the cap of {name!r} is {share}; a share lies in 0..1")
        return caps

    @abstractmethod
    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The preference order.

        Args:
            pool: The N rows.
            allowed: int [M], the rows that may be chosen, in pool order.
            work: Seeds, scratch, ledger.
        """

    def run(self, work: Work) -> Outcome:
        """Writes ``rows.jsonl`` in the order of selection, and ``selection.jsonl``.

        Raises:
            DataError: The pool is empty, a cap names a source that does not occur, or a row
                cannot be ranked.
        """
        pool = read(self.pool, rejected_to=work.folder / "rejected.jsonl", say=work.say)
        leaks = self._leaks(pool, work)
        allowed = np.setdiff1d(np.arange(len(pool)), np.fromiter(leaks, int, len(leaks)))
        if not len(allowed):
            raise DataError(
                "no row of the pool may be chosen",
                where=self.pool,
                fix="bring a larger pool, or look at what it shares with held_out",
            )
        sources = self._sources(pool)
        ranking = self.rank(pool, allowed, work)
        chosen, full = _take(ranking, self.count, len(pool), sources, self._room(sources))
        if len(chosen) < self.count:
            work.say(
                f"only {len(chosen)} rows can be chosen, {self.count} were asked for: "
                f"the pool has {len(pool)}, {len(leaks)} repeat held-out items, "
                f"{len(full)} are over their source's cap"
            )
        return write_selection(
            work,
            pool,
            ranking,
            chosen,
            leaks=leaks,
            full=full,
            sources=sources,
            asked=self.count,
        )

    def _leaks(self, pool: Rows, work: Work) -> dict[int, str]:
        """Row -> why it repeats a held-out item."""
        if self.held_out is None:
            return {}
        found = decontaminate(pool, read_beside(self.held_out, work, "prompt")).found
        if found:
            work.say(f"{len(found)} rows repeat held-out items and are left out")
        return {
            hit.index: f"repeats held-out item {hit.item}: {hit.ngram!r} ({hit.covered:.0%} of it)"
            for hit in found
        }

    def _sources(self, pool: Rows) -> list[str]:
        """Every row's source; ``""`` where it names none."""
        return [str(row.meta.get(self.source, "")) for row in pool]

    def _room(self, sources: list[str]) -> dict[str, int]:
        """Rows that a capped source may fill."""
        unknown = sorted(set(self.caps) - set(sources))
        if unknown:
            there = ", ".join(sorted(set(sources))[:10])
            raise DataError(
                f"caps name {unknown[0]!r}, which no row has as its {self.source}",
                where="caps",
                fix=f"the pool has: {there}",
            )
        return {name: int(share * self.count + 1e-9) for name, share in self.caps.items()}


def _take(
    ranking: Ranking, count: int, total: int, sources: list[str], room: dict[str, int]
) -> tuple[np.ndarray, set[int]]:
    """The first `count` rows of the order whose source is not full, and those passed over."""
    depth = count
    while True:
        order = ranking.first(min(depth, total))
        used: Counter[str] = Counter()
        chosen: list[int] = []
        full: set[int] = set()
        for row in order.tolist():
            if len(chosen) == count:
                break
            source = sources[row]
            if used[source] >= room.get(source, count):
                full.add(row)
                continue
            used[source] += 1
            chosen.append(row)
        if len(chosen) == count or len(order) < depth or depth >= total:
            return np.asarray(chosen, dtype=int), full
        depth *= 4
