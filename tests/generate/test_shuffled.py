"""The shuffled control: same prompts, same answers, no row with its own where that is possible."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.data.transforms import derangement
from tilth.generate import Shuffled


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 5))
def test_as_few_rows_as_possible_keep_their_answer(values: list[int], seed: int) -> None:
    array = np.array(values)
    source = derangement(array, np.random.default_rng(seed))
    assert sorted(source) == list(range(len(values)))
    most = max(Counter(values).values())
    assert int((array[source] == array).sum()) == max(0, 2 * most - len(values))


def test_rows_keep_prompts_answers_and_provenance(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    rows = [Example.pair(f"q{i}", f"answer {i}", system="be brief", skill="s") for i in range(30)]
    write_rows(pool, rows)
    made = Shuffled(data=str(pool)).to(tmp_path / "out")
    mixed = list(read(made.folder))
    assert [row.prompt for row in mixed] == [row.prompt for row in rows]
    assert sorted(row.answer for row in mixed) == sorted(row.answer for row in rows)
    assert all(new.answer != old.answer for new, old in zip(mixed, rows, strict=True))
    assert mixed[0].messages[0]["role"] == "system"
    assert mixed[0].meta["parents"][0] == rows[0].id
    assert mixed[0].id != rows[0].id
    again = Shuffled(data=str(pool)).to(tmp_path / "again")
    assert again.path("rows.jsonl").read_bytes() == made.path("rows.jsonl").read_bytes()


def test_a_single_answer_cannot_be_exchanged_and_is_counted(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    write_rows(pool, [Example.pair(f"q{i}", "yes") for i in range(4)])
    made = Shuffled(data=str(pool)).to(tmp_path / "out")
    assert made.manifest.metrics["same_answer"] == 4
