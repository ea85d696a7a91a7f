"""The rows of ``scores.jsonl``: one per item and seed, and what is said about them together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from tilth.errors import DataError
from tilth.stats import Estimate, mean_interval

__all__ = ["ScoreRow", "by_seed", "estimates", "read_scores", "shared_items", "write_scores"]


class ScoreRow(TypedDict):
    """One scored answer."""

    seed: int
    item: str
    skill: str
    level: int
    score: float
    prompt: str
    output: str
    answer: str
    finish: str


def write_scores(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Writes one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_scores(ref: str) -> list[ScoreRow]:
    """The rows of a scores artefact (its folder) or of a ``scores.jsonl``.

    Raises:
        DataError: The file is missing, empty, or a line is not a score.
    """
    path = Path(ref)
    path = path / "scores.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise DataError("there are no scores", where=str(path), fix="name an evaluation's folder")
    rows: list[ScoreRow] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(_row(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"this line is not a score: {error!r}",
                    where=f"{path}:{number}",
                    fix="a line has seed, item, skill and score",
                ) from error
    if not rows:
        raise DataError("the file of scores is empty", where=str(path))
    return rows


def _row(row: dict[str, Any]) -> ScoreRow:
    return {
        "seed": int(row["seed"]),
        "item": str(row["item"]),
        "skill": str(row["skill"]),
        "level": int(row.get("level", 1)),
        "score": float(row["score"]),
        "prompt": str(row.get("prompt", "")),
        "output": str(row.get("output", "")),
        "answer": str(row.get("answer", "")),
        "finish": str(row.get("finish", "")),
    }


def by_seed(rows: Sequence[ScoreRow]) -> list[np.ndarray]:
    """The scores of each seed, seeds and items in ascending order: S arrays of float [N_s]."""
    scores: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: (row["seed"], row["item"])):
        scores.setdefault(row["seed"], []).append(row["score"])
    return [np.array(row) for row in scores.values()]


def shared_items(rows: Iterable[ScoreRow]) -> bool:
    """Whether all seeds answered the same questions, as sampled answers to a fixed file do.

    Such questions are no fresh draw under every seed, and a bootstrap has to draw them jointly.
    """
    asked: dict[int, set[str]] = {}
    for row in rows:
        asked.setdefault(row["seed"], set()).add(row["item"])
    first = next(iter(asked.values()))
    return len(asked) > 1 and all(items == first for items in asked.values())


def estimates(rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """Metrics for a manifest: the mean with its interval, in all and by skill."""
    skills = sorted({row["skill"] for row in rows})
    whole = _mean(rows)
    return {
        "score": whole.value,
        "estimate": whole.as_dict(),
        "by_skill": {
            skill: _mean([row for row in rows if row["skill"] == skill]).as_dict()
            for skill in skills
        },
        "unfinished": sum(row["finish"] == "length" for row in rows),
    }


def _mean(rows: Sequence[ScoreRow]) -> Estimate:
    return mean_interval(by_seed(rows), shared_items=shared_items(rows))
