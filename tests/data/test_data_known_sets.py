"""SelfAware and ParaRel as questions, from small files and from the real ones where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tilth.data import read, write_rows
from tilth.data.known_sets import pararel_questions, self_aware_questions
from tilth.data.questions import questions_in
from tilth.errors import DataError

REAL = Path(__file__).parents[3] / "shared" / "data" / "r-tuning"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the data sets are not here")


def lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_pattern_that_ends_in_its_object_becomes_a_question(tmp_path: Path) -> None:
    patterns = lines(
        tmp_path / "patterns.jsonl",
        [
            {"pattern": "[Y] is the home of [X].", "relation": "P1"},
            {"pattern": "[X] was born in [Y] .", "relation": "P1"},
            {"pattern": "[Y] owns [X].", "relation": "P2"},
        ],
    )
    facts = [("Ada", "London", "P1"), ("Ada", "Kent", "P1"), ("Bob", "Acme", "P2")]
    tuples = lines(
        tmp_path / "tuples.jsonl",
        [{"sub_label": s, "obj_label": o, "relation": r} for s, o, r in facts],
    )
    (row,) = pararel_questions(tuples, patterns)
    assert row.prompt == "Complete with one word: Ada was born in"
    assert row.meta["answers"] == ["London", "Kent"]
    (question,) = questions_in([row], "x")
    assert question.golds == ("London", "Kent")
    lines(tuples, [{"sub_label": "Ada"}])
    with pytest.raises(DataError, match="not of ParaRel") as caught:
        pararel_questions(tuples, patterns)
    assert "tuples.jsonl:1" in str(caught.value)


def test_another_file_is_not_self_aware(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"example": [{"question": "?"}]}')
    with pytest.raises(DataError, match="lacks 'answerable'"):
        self_aware_questions(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="not SelfAware's file"):
        self_aware_questions(path)
    with pytest.raises(DataError, match="cannot be read"):
        self_aware_questions(tmp_path / "nothing.json")


@real
def test_the_real_self_aware(tmp_path: Path) -> None:
    rows = self_aware_questions(REAL / "SelfAware.json.xz")
    assert Counter(row.meta["answerable"] for row in rows) == {True: 2337, False: 1032}
    write_rows(tmp_path / "rows.jsonl", rows)
    questions = questions_in(read(tmp_path / "rows.jsonl", require="prompt"), "x")
    assert sum(not q.answerable for q in questions) == 1032
    assert all(q.golds for q in questions if q.answerable)


@real
def test_the_real_pararel() -> None:
    rows = pararel_questions(REAL / "pararel_tuples.jsonl.xz", REAL / "pararel_patterns.jsonl.xz")
    relations = {row.meta["relation"] for row in rows}
    assert len(relations) >= 30
    assert len(rows) > 20_000
    assert all(row.answer and "[X]" not in row.prompt and "[Y]" not in row.prompt for row in rows)
