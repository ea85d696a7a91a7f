"""What every selection writes: the chosen rows, and one line per pool row that says why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.data import Rows, write_rows
from tilth.data.example import Example
from tilth.method import Outcome, Work

if TYPE_CHECKING:
    from tilth.select._selector import Ranking

__all__ = ["write_selection"]


def write_selection(
    work: Work,
    pool: Rows,
    ranking: Ranking,
    chosen: np.ndarray,
    *,
    leaks: Mapping[int, str],
    full: set[int],
    sources: list[str],
    asked: int,
) -> Outcome:
    """Writes ``rows.jsonl`` in the order of selection and ``selection.jsonl`` in pool order.

    A line of ``selection.jsonl`` holds ``row``, ``id``, ``source``, ``kept``, ``rank`` (1 is the
    first chosen), ``score``, ``reason`` and the ranking's own details.

    Args:
        work: Where to write.
        pool: The N rows to choose from; read one at a time.
        ranking: The order that was followed.
        chosen: int [K], the chosen rows in order.
        leaks: Row -> why it repeats a held-out item.
        full: Rows that were passed over because their source was full.
        sources: str [N].
        asked: How many rows were asked for.
    """
    scores = ranking.scores
    rank = np.zeros(len(pool), int)
    rank[chosen] = np.arange(1, len(chosen) + 1)

    def rows() -> Iterator[Example]:
        for row in chosen.tolist():
            example = pool[row]
            yield example if scores is None else _scored(example, ranking.name, float(scores[row]))

    write_rows(work.folder / "rows.jsonl", rows())
    with (work.folder / "selection.jsonl").open("w", encoding="utf-8") as lines:
        for row, example in enumerate(pool):
            score = None if scores is None or not np.isfinite(scores[row]) else float(scores[row])
            line: dict[str, Any] = {
                "row": row,
                "id": example.id,
                "source": sources[row],
                "kept": bool(rank[row]),
                "rank": int(rank[row]) or None,
                "score": score,
            }
            if row in leaks:
                line["reason"] = leaks[row]
            elif row in full:
                line["reason"] = f"its source {sources[row]!r} is full"
            else:
                line |= {"reason": ranking.reason(row, bool(rank[row])), **ranking.details(row)}
            lines.write(json.dumps(line) + "\n")
    work.say(f"kept {len(chosen)} of {len(pool)} rows")
    return Outcome(
        metrics={
            "rows_in": len(pool),
            "rows_out": len(chosen),
            "rows_asked": asked,
            "leaks": len(leaks),
            "over_cap": len(full),
            "sources": dict(Counter(sources[row] for row in chosen.tolist()).most_common()),
            **ranking.metrics,
        },
        funnel=[("read", pool.records), ("usable", len(pool)), ("kept", len(chosen))],
        not_measured=list(ranking.notes),
    )


def _scored(example: Example, name: str, score: float) -> Example:
    meta = {**example.meta, "scores": {**(example.meta.get("scores") or {}), name: score}}
    return Example(example.messages, meta, example.chosen, example.rejected, example.id)
