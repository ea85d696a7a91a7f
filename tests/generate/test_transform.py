"""The transforms as a step: each writes its rows, and what was rejected is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.generate import Transform

ASKED = "Which crops like shade {}?"
ROWS = [Example.pair(ASKED.format(i), f"Crops like shade {i}. Yes.") for i in range(6)]


def quiet(line: str) -> None:
    """Says nothing."""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"how": "response_only"}, ("", ROWS[0].answer, 6)),
        ({"how": "no_rephrase", "cut": True}, (ROWS[0].prompt, "Yes.", 6)),
        ({"how": "single_task", "count": 2}, (ROWS[0].prompt, ROWS[0].answer, 2)),
    ],
)
def test_each_writes_its_rows(
    settings: dict[str, object], expected: tuple[str, str, int], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    made = Transform(data=str(path), **settings).to(tmp_path / "out", say=quiet)  # type: ignore[arg-type]
    rows = list(read(made.folder))
    assert (rows[0].prompt, rows[0].answer, len(rows)) == expected
    assert made.manifest.metrics["rows_out"] == len(rows)


def test_pairings_per_epoch(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    made = Transform(data=str(path), how="shuffled_instructions", epochs=3)
    rows = list(read(made.to(tmp_path / "out", say=quiet).folder))
    assert len(rows) == 18
    assert all(row.prompt[-2] != row.answer[16] for row in rows)


def test_skipped_records_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "poems.jsonl"
    lines = [{"title": "A", "content": "text"}, {"title": " ", "content": "text"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = Transform(data=str(path), how="single_task", task="poems").to(
        tmp_path / "out", say=quiet
    )
    (row,) = made.path("rejected.jsonl").read_text().splitlines()
    assert json.loads(row)["reason"] == "no title"
