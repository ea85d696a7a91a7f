"""What every selection writes: the chosen rows, one line per pool row, and a summary to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tilth.artefacts import write_atomically
from tilth.data import Rows, write_rows
from tilth.data.example import Example
from tilth.method import Outcome, Work
from tilth.select._summary import Summary

if TYPE_CHECKING:
    import numpy as np

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
    """Writes ``rows.jsonl`` in the order of selection, and ``selection.jsonl`` in pool order.

    A line of ``selection.jsonl`` holds ``row``, ``id``, ``source``, ``kept``, ``rank`` (1 is the
    first chosen), ``score``, ``why`` (``chosen``, ``held_out``, ``cap``, ``similar`` or ``rank``),
    ``reason``, the same in words, and the ranking's own details. ``summary.json`` counts and
    samples them for the report.

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
    rank = dict(zip(chosen.tolist(), range(1, len(chosen) + 1), strict=True))
    summary = Summary(work.stream("summary"), ranking, chosen, len(pool))

    def rows() -> Iterator[Example]:
        for row in chosen.tolist():
            example = pool[row]
            yield example if scores is None else _scored(example, ranking.name, float(scores[row]))

    write_rows(work.folder / "rows.jsonl", rows())
    with (work.folder / "selection.jsonl").open("w", encoding="utf-8") as lines:
        for row, example in enumerate(pool):
            line: dict[str, Any] = {
                "row": row,
                "id": example.id,
                "source": sources[row],
                "kept": row in rank,
                "rank": rank.get(row),
                "score": _plain(scores, row),
            }
            if row in leaks:
                line |= {"why": "held_out", "reason": leaks[row]}
            elif row in full:
                line |= {"why": "cap", "reason": f"its source {sources[row]!r} is full"}
            else:
                details = ranking.details(row)
                why = "similar" if "similar_to" in details else "rank"
                line["why"] = "chosen" if row in rank else why
                line |= {"reason": ranking.reason(row, row in rank), **details}
            lines.write(json.dumps(line) + "\n")
            summary.see(line, example)
    told = summary.finish(pool)
    write_atomically(work.folder / "summary.json", json.dumps(told) + "\n")
    work.say(f"kept {len(chosen)} of {len(pool)} rows")
    return Outcome(
        metrics={
            "rows_in": len(pool),
            "rows_out": len(chosen),
            "rows_asked": asked,
            "leaks": len(leaks),
            "over_cap": len(full),
            "sources": {name: kept for name, (_, kept) in told["sources"].items() if kept},
            **ranking.metrics,
        },
        funnel=[("read", pool.records), ("usable", len(pool)), ("kept", len(chosen))],
        not_measured=list(ranking.notes),
    )


def _plain(scores: np.ndarray | None, row: int) -> float | None:
    """A row's score where it has one that JSON can say."""
    score = None if scores is None else float(scores[row])
    return score if score is not None and abs(score) < float("inf") else None


def _scored(example: Example, name: str, score: float) -> Example:
    meta = {**example.meta, "scores": {**(example.meta.get("scores") or {}), name: score}}
    return Example(example.messages, meta, example.chosen, example.rejected, example.id)
