"""What the report shows of the data: a few rows of each step, and the same question answered twice.

Files are streamed: a pool larger than memory costs time, not memory. Which rows are shown is drawn
with a fixed seed, so that nobody picked them and two reports of one run agree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth.report.numbers import score, setting
from tilth.report.reading import RunView, StepView, json_rows
from tilth.report.scores import arm_files
from tilth.seeds import stream

__all__ = ["BeforeAfter", "Sample", "Turn", "before_after", "rejections", "samples_of"]

ROWS, ANSWERS = 3, 2  # shown per step; our choice: enough to see the form, few enough to read
LONGEST = 700  # characters of one text; our choice


@dataclass(frozen=True)
class Turn:
    """One text with the role of who said it."""

    role: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A row as the report shows it: its turns and one line of provenance."""

    turns: tuple[Turn, ...]
    provenance: str


@dataclass(frozen=True)
class BeforeAfter:
    """One exam item and what two arms answered."""

    what: str
    prompt: str
    answer: str
    before: str
    after: str
    provenance: str


def samples_of(step: StepView) -> list[Sample]:
    """A few rows of a step's ``rows.jsonl`` or ``scores.jsonl``."""
    if rows := step.file("rows.jsonl"):
        return [_row_sample(json.loads(line)) for line in _drawn(rows, ROWS)]
    if rows := step.file("scores.jsonl"):
        return [_score_sample(json.loads(line)) for line in _drawn(rows, ANSWERS)]
    return []


def rejections(step: StepView) -> list[tuple[str, int]]:
    """``(reason, rows)`` of a step's ``rejected.jsonl``, most frequent first."""
    path = step.file("rejected.jsonl")
    if not path:
        return []
    counts = Counter(str(row.get("reason", "no reason given")) for row in json_rows(path))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def before_after(run: RunView, arm: str, baseline: str) -> list[BeforeAfter]:
    """Items that `arm` gained, lost, and answered as before; one of each where there are any.

    The arms' score files are found through the settings of the comparison step.
    """
    files = arm_files(run)
    if arm not in files or baseline not in files:
        return []
    before = {(r["seed"], r["item"]): r for r in json_rows(files[baseline])}
    chosen: dict[str, tuple[int, BeforeAfter]] = {}
    seen: Counter[str] = Counter()
    rng = stream(0, "report", "before-after", run.name)
    for row in json_rows(files[arm]):
        first = before.get((row["seed"], row["item"]))
        if first is None:
            continue
        what = _change(float(first["score"]), float(row["score"]))
        seen[what] += 1
        if rng.random() * seen[what] < 1:  # reservoir of one: every item has the same chance
            chosen[what] = (seen[what], _pair(what, first, row))
    order = ("gained", "lost", "right both times", "neither gained nor lost", "wrong both times")
    return [chosen[what][1] for what in order if what in chosen]


def _change(before: float, after: float) -> str:
    if after > before:
        return "gained"
    if after < before:
        return "lost"
    if 0 < after < 1:  # a part of the score both times, for a refusal for instance
        return "neither gained nor lost"
    return "right both times" if after else "wrong both times"


def _pair(what: str, before: dict[str, Any], after: dict[str, Any]) -> BeforeAfter:
    skill = f"{after.get('skill', '')} level {after.get('level', '')}"
    return BeforeAfter(
        what,
        _short(after.get("prompt", "")),
        _short(after.get("answer", "")),
        _short(before.get("output", "")),
        _short(after.get("output", "")),
        f"{skill} · test seed {after['seed']} · {after['item']}",
    )


def _row_sample(row: dict[str, Any]) -> Sample:
    turns = [Turn(m["role"], _short(m["content"])) for m in row["messages"]]
    turns += [Turn(side, _short(row[side])) for side in ("chosen", "rejected") if row.get(side)]
    meta = row.get("meta") or {}
    known = [f"{k}: {setting(v)}" for k, v in meta.items() if v not in (None, "", [], {})]
    return Sample(tuple(turns), _short(" · ".join([*known, f"row {row.get('id', '')}"]), 400))


def _score_sample(row: dict[str, Any]) -> Sample:
    turns = (
        Turn("question", _short(row.get("prompt", ""))),
        Turn("output", _short(row.get("output", ""))),
        Turn("answer", _short(row.get("answer", ""))),
    )
    parts = (
        f"score {score(float(row['score']))}",
        f"{row.get('skill', '')} level {row.get('level', '')}",
        f"seed {row.get('seed', '')}",
        str(row.get("item", "")),
    )
    return Sample(turns, _short(" · ".join(parts), 400))


def _drawn(path: Path, count: int) -> list[str]:
    """`count` lines of a file in their order, each line with the same chance (algorithm R)."""
    rng = stream(0, "report", "samples")
    with path.open(encoding="utf-8") as lines:
        kept: list[tuple[int, str]] = []
        for number, line in _whole(lines):
            if number < count:
                kept.append((number, line))
            elif (slot := int(rng.integers(number + 1))) < count:
                kept[slot] = (number, line)
    return [line for _, line in sorted(kept)]


def _whole(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    return enumerate(line for line in lines if line.endswith("\n") and line.strip())


def _short(text: Any, longest: int = LONGEST) -> str:
    text = str(text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
