"""Style adherence on embeddings made by hand, and as a step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tilth.data import write_rows
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.evaluate import Style
from tilth.evaluate.style import adherence

TASK, GENERAL, OTHER = np.eye(3)


def test_likeness_and_adherence_by_hand() -> None:
    asked = np.stack([TASK, OTHER])
    said = np.stack([TASK, GENERAL])
    likeness, adhering = adherence(asked, said, TASK[None], TASK[None], GENERAL[None])
    np.testing.assert_allclose(likeness, [1, 0])
    np.testing.assert_allclose(adhering, [1, -1])


def test_the_step_writes_a_row_per_answer(tiny: Path, tmp_path: Path) -> None:
    for name in ("task", "general", "answers"):
        rows = [Example.pair(f"{name} question {i}", f"{name} answer {i}") for i in range(4)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("task", "general")}
    step = Style(outputs=str(tmp_path / "answers.jsonl"), model=str(tiny), **paths)
    made = step.to(tmp_path / "out", say=lambda line: None)
    rows = [json.loads(line) for line in made.path("style.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    mean = np.mean([row["adherence"] for row in rows])
    assert made.manifest.metrics["adherence"] == pytest.approx(mean)
    same = Style(outputs=paths["task"], task=paths["task"], general=paths["task"], model=str(tiny))
    assert same.to(tmp_path / "same").manifest.metrics["adherence"] == pytest.approx(0, abs=1e-6)


def test_no_answers_is_an_error(tiny: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [Example.pair("q", "a")])
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps([{"instruction": "q", "output": " ", "generator": "m"}]))
    rows = str(tmp_path / "rows.jsonl")
    step = Style(outputs=str(path), task=rows, general=rows, model=str(tiny))
    with pytest.raises(DataError, match="no instruction has an answer"):
        step.to(tmp_path / "out", say=lambda line: None)
