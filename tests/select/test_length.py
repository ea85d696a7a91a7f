"""Selection by length: which rows stay, ties, reasons, and the error for a small pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.select import Length

ANSWERS = ["one", "one two three", "a b", "one two three four", "x y", "a b c"]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    write_rows(path, (Example.pair(f"q{i}", a) for i, a in enumerate(ANSWERS)))
    return path


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep": "longest"}, ["q3", "q1", "q5"]),
        ({"keep": "shortest"}, ["q0", "q2", "q4"]),
        ({"keep": "middle"}, ["q1", "q2", "q4"]),  # median 2.5: 3, 2, 2 and 3 words tie
        ({"keep": "longest", "by": "characters"}, ["q3", "q1", "q5"]),
    ],
)
def test_which_rows_stay(
    pool: Path, tmp_path: Path, settings: dict[str, Any], kept: list[str]
) -> None:
    made = Length(pool=str(pool), count=3, **settings).to(tmp_path / "out")
    assert [row.prompt for row in read(made.folder)] == kept


def test_every_row_has_its_reason_and_kept_rows_their_score(pool: Path, tmp_path: Path) -> None:
    made = Length(pool=str(pool), count=2).to(tmp_path / "out")
    lines = [json.loads(x) for x in made.path("selection.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(6))
    assert lines[3]["reason"] == "words 4: rank 1 of 6"
    assert lines[5]["reason"] == "words 3: rank 3 of 6"  # the tie goes to the earlier row
    assert [row.meta["scores"]["words"] for row in read(made.folder)] == [4.0, 3.0]
    assert made.manifest.metrics["rows_in"] == 6
    assert made.manifest.metrics["rows_out"] == 2


def test_too_many_gives_all_and_names_both_numbers(pool: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = Length(pool=str(pool), count=7).to(tmp_path / "out", say=said.append)
    assert made.manifest.metrics["rows_out"] == 6
    assert any("only 6 rows can be chosen, 7 were asked for" in line for line in said)


def test_tokens_are_those_of_the_named_model(pool: Path, tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    method = Length(pool=str(pool), count=6, by="tokens", tokenizer=str(tiny))
    rows = list(read(method.to(tmp_path / "out").folder))
    counted = AutoTokenizer.from_pretrained(tiny)
    for row in rows:
        ids = counted(row.answer, add_special_tokens=False).input_ids
        assert row.meta["scores"]["tokens"] == len(ids)
