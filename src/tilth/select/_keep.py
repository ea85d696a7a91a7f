"""What every selection writes: the kept rows, and one line per pool row that says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np

from tilth.data import Rows, write_rows
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.method import Outcome, Work

__all__ = ["keep_rows", "require"]


def require(count: int, pool: Rows, where: str) -> None:
    """Refuses to choose more rows than there are.

    Raises:
        DataError: Names both numbers.
    """
    if count > len(pool):
        raise DataError(
            f"{count} rows are asked for, but the pool has {len(pool)}",
            where=where,
            fix=f"set count to {len(pool)} or less, or bring a larger pool",
        )


def keep_rows(
    work: Work,
    pool: Rows,
    kept: np.ndarray,
    reason: Callable[[int], str],
    *,
    scores: np.ndarray | None = None,
    name: str = "",
) -> Outcome:
    """Writes ``rows.jsonl`` in pool order and ``selection.jsonl`` with a line for every pool row.

    Args:
        work: Where to write.
        pool: The N rows to choose from; read one at a time.
        kept: bool [N].
        reason: Says for a row's index why it was kept or left.
        scores: float [N], what the choice went by, if anything.
        name: What the scores are, stored under ``meta["scores"]`` of a kept row.
    """
    with (work.folder / "selection.jsonl").open("w", encoding="utf-8") as lines:

        def chosen() -> Iterator[Example]:
            for index, example in enumerate(pool):
                score = None if scores is None else float(scores[index])
                line = {"row": index, "id": example.id, "kept": bool(kept[index]), "score": score}
                lines.write(json.dumps({**line, "reason": reason(index)}) + "\n")
                if kept[index]:
                    yield example if score is None else _scored(example, name, score)

        write_rows(work.folder / "rows.jsonl", chosen())
    total = int(kept.sum())
    work.say(f"kept {total} of {len(pool)} rows")
    return Outcome(
        metrics={"rows_in": len(pool), "rows_out": total},
        funnel=[("read", pool.records), ("usable", len(pool)), ("kept", total)],
    )


def _scored(example: Example, name: str, score: float) -> Example:
    meta = {**example.meta, "scores": {**(example.meta.get("scores") or {}), name: score}}
    return Example(example.messages, meta, example.chosen, example.rejected, example.id)
