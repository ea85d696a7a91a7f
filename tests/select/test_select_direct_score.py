"""Direct scoring: one row at a time, its scale, answers without a score, saturation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_teacher import serve

from tilth.data import Example, write_rows
from tilth.errors import DataError
from tilth.select.direct_score import DirectScore, read_number


def quiet(line: str) -> None:
    """Says nothing."""


def lines(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "selection.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("said", "score"),
    [("4", 4), ("Score: 4.5 of 5", 4.5), ("0", 0), ("6", None), ("-1", None), ("good", None)],
)
def test_the_first_number_counts_where_it_lies_in_the_scale(said: str, score: object) -> None:
    assert read_number(said, 0, 5) == score


def rows(path: Path, count: int) -> str:
    write_rows(path, [Example.pair(f"Question {n}?", "yes " * n) for n in range(1, count + 1)])
    return str(path)


def test_each_row_is_shown_alone(tmp_path: Path) -> None:
    seen: list[str] = []

    def judge_says(prompt: str, seed: int) -> str:
        seen.append(prompt)
        return f"Score: {prompt.count('yes')}"

    with serve(judge_says) as judge:
        made = DirectScore(pool=rows(tmp_path / "p.jsonl", 5), model=judge, count=2).to(
            tmp_path / "out", say=quiet
        )
    assert len(seen) == 5
    assert all(prompt.count("Question ") == 1 for prompt in seen)
    assert all("from 0 to 5" in prompt for prompt in seen)
    told = lines(made.folder)
    assert [line["row"] for line in told if line["kept"]] == [3, 4]
    assert [line["score"] for line in told] == [1, 2, 3, 4, 5]
    assert made.manifest.metrics["saturated"] == 0.2


def test_complexity_goes_to_ten_and_does_not_see_the_response(tmp_path: Path) -> None:
    def judge_says(prompt: str, seed: int) -> str:
        assert "from 1 to 10" in prompt
        assert "yes" not in prompt
        return "8"

    data = rows(tmp_path / "p.jsonl", 4)
    with serve(judge_says) as judge:
        made = DirectScore(pool=data, model=judge, count=2, aspect="complexity").to(
            tmp_path / "out", say=quiet
        )
    assert [line["row"] for line in lines(made.folder) if line["kept"]] == [0, 1], "ties are stable"
    assert made.manifest.metrics["saturated"] == 1


def test_answers_without_a_score_are_counted(tmp_path: Path) -> None:
    def judge_says(prompt: str, seed: int) -> str:
        return "I would rather not." if "Question 7?" in prompt else "3"

    said: list[str] = []
    with serve(judge_says) as judge:
        method = DirectScore(pool=rows(tmp_path / "p.jsonl", 12), model=judge, count=12)
        made = method.to(tmp_path / "out", say=said.append)
    told = lines(made.folder)
    assert told[6]["reason"] == "no score: the judge's answer holds no number from 0 to 5"
    assert (told[6]["kept"], told[6]["score"]) == (False, None)
    assert made.manifest.metrics["without_a_score"] == 1
    assert any("1 of 12 rows got no score" in line for line in said)


def test_a_judge_that_never_scores_is_told(tmp_path: Path) -> None:
    with serve(lambda prompt, seed: "Fine!") as judge:
        with pytest.raises(DataError, match="6 of 6 rows have no direct_quality"):
            DirectScore(pool=rows(tmp_path / "p.jsonl", 6), model=judge).to(
                tmp_path / "out", say=quiet
            )


def test_a_dialogue_gets_the_mean_of_its_turns(tmp_path: Path) -> None:
    turns = [("user", "one"), ("assistant", "yes"), ("user", "two"), ("assistant", "yes yes yes")]
    row = Example([{"role": r, "content": c} for r, c in turns])  # type: ignore[typeddict-item]
    write_rows(tmp_path / "p.jsonl", [row])
    with serve(lambda prompt, seed: str(prompt.count("yes"))) as judge:
        made = DirectScore(pool=str(tmp_path / "p.jsonl"), model=judge, count=1).to(
            tmp_path / "out", say=quiet
        )
    assert lines(made.folder)[0]["score"] == 2


def test_the_teacher_seedling_judges_in_its_own_turns(tmp_path: Path) -> None:
    made = DirectScore(pool=rows(tmp_path / "p.jsonl", 3), count=1).to(tmp_path / "out", say=quiet)
    assert all(1 <= line["score"] <= 6 for line in lines(made.folder))
