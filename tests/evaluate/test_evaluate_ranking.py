"""Response ranking: draws, strictness, equal draws, the length of responses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.data import write_rows
from tilth.data.example import Example
from tilth.errors import DataError, EngineError
from tilth.evaluate import Ranking
from tilth.evaluate.ranking import draw, rank, ranking_scores
from tilth.models import Score
from tilth.models.local import LocalEngine

ROWS = [Example.pair(f"question {i}", f"answer {i % 7}") for i in range(30)]


def quiet(line: str) -> None:
    """Says nothing."""


@given(st.integers(2, 20), st.integers(1, 6), st.integers(0, 9), st.booleans())
def test_draws_are_other_rows_and_never_equal_answers(
    count: int, draws: int, seed: int, official: bool
) -> None:
    rows = [Example.pair(f"q{i}", f"a{i % 3}") for i in range(count)]
    drawn = draw(rows, 100, draws, seed, official=official)
    assert all(j != i for i, js in zip(drawn.items, drawn.others, strict=True) for j in js)
    total = sum(map(len, drawn.others))
    assert total + drawn.equal == count * draws
    if official:
        assert drawn.equal == 0
        return
    for i, js in zip(drawn.items, drawn.others, strict=True):
        assert js
        assert all(rows[j].answer != rows[i].answer for j in js)


def test_the_published_numbers_are_the_defaults_and_the_draw_is_with_replacement() -> None:
    method = Ranking(model="m", data="d")
    assert (method.count, method.draws, method.draw_seed, method.official) == (1000, 5, 0, False)
    drawn = draw([Example.pair(f"q{i}", f"a{i}") for i in range(1200)], official=True)
    assert len(drawn.items) == 1000
    assert {len(js) for js in drawn.others} == {5}
    few = draw([Example.pair(f"q{i}", f"a{i}") for i in range(3)], draws=5, official=True)
    assert all(len(set(js)) < 5 for js in few.others), "with replacement"


def test_equal_is_not_greater_and_length_counts() -> None:
    own = [Score(-2.0, 1), Score(-4.0, 8)]
    random = [[Score(-2.0, 1), Score(-3.0, 1)], [Score(-3.0, 1), Score(-5.0, 1)]]
    ranks = rank(own, random)
    np.testing.assert_array_equal(ranks["sum"], [0.5, 0.5])
    np.testing.assert_array_equal(ranks["mean"], [0.5, 1.0])
    np.testing.assert_array_equal(ranks["ties"], [1, 0])


def test_scores_are_those_of_the_whole_turn(tiny: Path) -> None:
    model = LocalEngine.open(str(tiny))
    drawn = draw(ROWS, 3, 2, 0, official=True)
    own, random = ranking_scores(model, ROWS, drawn)
    turns = [
        {"role": "user", "content": ROWS[0].prompt},
        {"role": "assistant", "content": ROWS[drawn.others[0][1]].answer},
    ]
    (expected,) = model.score_chat([turns])  # type: ignore[list-item]
    assert random[0][1].logprob == pytest.approx(expected.logprob, abs=1e-4)
    plain, _ = ranking_scores(model, ROWS, drawn, "plain")
    (text,) = model.score([("Question: question 0\nAnswer:", " answer 0")])
    assert plain[0].logprob == pytest.approx(text.logprob, abs=1e-4)
    assert own[0].tokens > plain[0].tokens, "the mark that ends the turn counts"


def test_the_step_tells_rates_intervals_and_what_was_left_out(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    made = Ranking(model=str(tiny), data=str(path)).to(tmp_path / "out", say=quiet)
    metrics = made.manifest.metrics
    pairs = [json.loads(line) for line in made.path("pairs.jsonl").read_text().splitlines()]
    assert metrics["pairs"] == len(pairs) == 5 * len(ROWS) - metrics["equal_draws_excluded"]
    assert metrics["equal_draws_excluded"] > 0
    wins = {row["item"]: [] for row in pairs}  # type: ignore[var-annotated]
    for row in pairs:
        wins[row["item"]].append(row["logprob"] > row["other_logprob"])
    assert metrics["score"] == pytest.approx(np.mean([np.mean(w) for w in wins.values()]))
    assert metrics["estimate"]["low"] <= metrics["score"] <= metrics["estimate"]["high"]
    assert "per_token" in metrics
    scores = made.path("scores.jsonl").read_text().splitlines()
    assert len(scores) + metrics["items_without_draws"] == len(ROWS)
    official = Ranking(model=str(tiny), data=str(path), official=True)
    kept = official.to(tmp_path / "official", say=quiet).manifest.metrics
    assert (kept["pairs"], kept["equal_draws_excluded"]) == (5 * len(ROWS), 0)
    assert kept["ties"] > 0


def test_one_response_cannot_be_ranked() -> None:
    with pytest.raises(DataError, match="at least two different responses"):
        draw([Example.pair("a", "same"), Example.pair("b", "same ")], official=True)


def test_an_engine_without_log_probabilities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    method = Ranking(model="openai:m@http://127.0.0.1:9/v1", data=str(path))
    with pytest.raises(EngineError, match="cannot score_chat"):
        method.to(tmp_path / "out", say=quiet)
