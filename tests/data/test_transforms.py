"""Data with something left out: what stays, what goes, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.data.single_task import COUNTS, single_task
from tilth.data.transforms import (
    no_rephrase,
    rephrases,
    response_only,
    shuffled_instructions,
)
from tilth.errors import DataError

WORDS = st.text("ab c\n", min_size=1, max_size=8).filter(str.strip)
TURNS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3)


@given(TURNS, st.booleans())
def test_blanking_changes_user_turns_and_nothing_else(
    turns: list[tuple[str, str]], system: bool
) -> None:
    messages = [{"role": "system", "content": "be brief"}] if system else []
    for asked, said in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    row = Example(messages, {"skill": "s"})  # type: ignore[arg-type]
    blank = response_only(row)
    assert [m["role"] for m in blank.messages] == [m["role"] for m in row.messages]
    for new, old in zip(blank.messages, row.messages, strict=True):
        assert new["content"] == ("" if old["role"] == "user" else old["content"])
    assert blank.meta["parents"] == [row.id]
    assert blank.meta["skill"] == "s"
    assert row.messages[-2]["content"], "the row itself is not touched"


def test_blanked_rows_are_read_again_and_unmeant_blanks_are_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [Example.pair(f"q{i}", f"a{i}") for i in range(3)]
    write_rows(path, map(response_only, rows))
    assert [row.answer for row in read(path)] == ["a0", "a1", "a2"]
    write_rows(path, [*rows, Example.pair("", "an answer to nothing")])
    again = read(path, max_rejected=0.5)
    assert again.rejected == {"empty user turn": 1}


@settings(deadline=None)
@given(st.integers(2, 20), st.integers(1, 3), st.integers(0, 3))
def test_no_answer_keeps_its_question_and_every_epoch_has_all(
    count: int, epochs: int, seed: int
) -> None:
    rows = [Example.pair(f"q{i}", f"a{i}") for i in range(count)]
    mixed = list(shuffled_instructions(rows, seed, epochs))
    assert len(mixed) == count * epochs
    for epoch in range(epochs):
        part = [row for row in mixed if row.meta["epoch"] == epoch]
        assert [row.answer for row in part] == [row.answer for row in rows]
        assert sorted(row.prompt for row in part) == sorted(row.prompt for row in rows)
        assert all(row.prompt[1:] != row.answer[1:] for row in part)
    assert mixed == list(shuffled_instructions(rows, seed, epochs))


def test_epochs_are_paired_anew_and_the_official_form_may_keep_a_pair() -> None:
    rows = [Example.pair(f"q{i}", f"a{i}") for i in range(40)]
    mixed = [row.prompt for row in shuffled_instructions(rows, 1, 2)]
    assert mixed[:40] != mixed[40:]
    kept = [
        row.prompt[1:] == row.answer[1:]
        for row in shuffled_instructions(rows, 1, 50, official=True)
    ]
    assert 0.5 < np.sum(kept) / 50 < 2, "a plain permutation has one fixed point on average"


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("What are the best crops for sandy soil?", "The best crops for sandy soil: rye. Oats.", 1),
        ("What are the best crops for sandy soil?", "The best crops for sandy soil are rye", 0),
        ("What are the best crops for sandy soil?", "Rye and oats. They like it dry.", 0),
        ("How much is 2 and 3?", "2 + 3 = 5. The answer is 5.", 0),
    ],
)
def test_an_answer_that_repeats_the_question_is_seen(
    prompt: str, answer: str, expected: int
) -> None:
    assert rephrases(Example.pair(prompt, answer)) == bool(expected)
    assert rephrases(Example.pair(prompt, answer, rephrases=True)), "a label decides"


def test_repeating_rows_go_or_lose_their_first_sentence() -> None:
    rows = [
        Example.pair("Which plants grow tall in shade?", "Plants grow tall in shade: yes. Ferns."),
        Example.pair("Which plants grow?", "Ferns."),
    ]
    assert [row.answer for row in no_rephrase(rows)] == ["Ferns."]
    assert [row.answer for row in no_rephrase(rows, cut=True)] == ["yes. Ferns.", "Ferns."]


RECORDS = {
    "mbpp": (
        {"text": "Write a function to add. ", "code": "def add(a, b):\r\n    return a + b"},
        ("Write a function to add.", "def add(a, b):\n    return a + b"),
    ),
    "gsm8k": (
        {"question": "2 and 3?", "answer": "2 + 3 = 5\n#### 5"},
        ("2 and 3?", "2 + 3 = 5\n#### 5"),
    ),
    "poems": (
        {"poem name": "Dusk", "content": "The light\nis low"},
        ("Write a poem called Dusk", "The light\nis low"),
    ),
    "recipes": (
        {"title": "Soup", "ingredients": ["1 leek", "- salt"], "directions": "Boil.\nServe."},
        ("Recipe for Soup", "- 1 leek\n- salt\n\nBoil.\nServe."),
    ),
    "chess": (
        {"WhiteElo": 1500, "BlackElo": 1600, "transcript": "1.e4 e5"},
        ('[WhiteElo "1500"]\n[BlackElo "1600"]', "1.e4 e5"),
    ),
}


@pytest.mark.parametrize("task", RECORDS)
def test_each_task_has_its_own_question_and_answer(task: str, tmp_path: Path) -> None:
    record, expected = RECORDS[task]
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(record) + "\n")
    (row,) = single_task(path, task).rows  # type: ignore[arg-type]
    assert (row.prompt, row.answer) == expected
    assert row.meta["at"] == "data.jsonl:1"


def test_rows_without_a_title_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "poems.jsonl"
    poems = [{"poem name": f"T{i}" if i % 2 else "", "content": "text"} for i in range(3000)]
    path.write_text("".join(json.dumps(p) + "\n" for p in poems))
    found = single_task(path, "poems")
    assert (len(found.rows), found.scanned) == (500, COUNTS["poems"])
    assert found.skipped == {"no title": 500}
    assert found.rejections[0].line == 1
    filled = single_task(path, "poems", counting="kept")
    assert (len(filled.rows), filled.scanned) == (1000, 2000)


def test_a_missing_column_names_those_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a", "solution": "b"}\n')
    with pytest.raises(DataError, match="needs a column 'code'; there are solution, text"):
        single_task(path, "mbpp")
    with pytest.raises(DataError, match="unknown task 'mbp'"):
        single_task(path, "mbp")  # type: ignore[arg-type]
    path.write_text('{"question": "a", "answer": "no mark"}\n')
    with pytest.raises(DataError, match=r"no record gives a row .* 1 x no #### line"):
        single_task(path, "gsm8k")


def test_rows_of_any_form_are_a_task(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [Example.pair(f"q{i}", "a") for i in range(5)])
    assert len(single_task(path, count=3).rows) == 3


def test_the_held_gsm8k_gives_its_first_thousand() -> None:
    held = Path(__file__).parents[3] / "shared/data/scalequest"
    files = sorted(held.glob("*gsm8k*train*")) if held.is_dir() else []
    if not files:
        pytest.skip("the shared data is not here")
    found = single_task(files[0], "gsm8k")
    assert len(found.rows) == 1000
    assert all("####" in row.answer for row in found.rows)
