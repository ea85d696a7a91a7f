"""What every selection writes beside its rows: the reason of each, and a summary to draw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tilth.artefacts import Artefact
from tilth.data import Rows, read, write_rows
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.method import Work
from tilth.select import Length, Random
from tilth.select._selector import Ranking, Selector, by_score


class Nearest(Selector):
    """Chooses rows by their number, with embeddings on a circle and a twin for every third row."""

    name: ClassVar = "nearest"

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order of the pool, without every third row."""
        angles = np.linspace(0, np.pi, len(pool))
        twins = allowed[allowed % 3 == 2]

        def details(row: int) -> Mapping[str, Any]:
            if row in twins:
                return {"similar_to": row - 1, "similarity": 0.97}
            return {"query": f"q{row % 2}", "round": row // 2 + 1}

        return by_score(
            -np.arange(len(pool), dtype=float),
            np.setdiff1d(allowed, twins),
            "place",
            details=details,
            vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1),
            queries={"q0": "the even ones", "q1": "the odd ones"},
        )


@pytest.fixture
def pool(tmp_path: Path) -> str:
    rows = (
        Example.pair(f"Question {i}?", "word " * (30 - i), source="ab"[i % 2]) for i in range(30)
    )
    write_rows(tmp_path / "pool.jsonl", rows)
    return str(tmp_path / "pool.jsonl")


def lines_of(made: Artefact) -> list[dict[str, Any]]:
    return [json.loads(x) for x in made.path("selection.jsonl").read_text().splitlines()]


def summary_of(made: Artefact) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(made.path("summary.json").read_text())
    return summary


def test_every_row_says_why(pool: str, tmp_path: Path) -> None:
    held_out = tmp_path / "held.jsonl"
    held_out.write_text('{"prompt": "Question 0?"}\n')
    method = Nearest(pool=pool, count=6, held_out=str(held_out), caps={"b": 0.34})
    made = method.to(tmp_path / "out")
    why = [line["why"] for line in lines_of(made)]
    assert why[:3] == ["held_out", "chosen", "similar"]
    assert [i for i, w in enumerate(why) if w == "chosen"] == [1, 3, 4, 6, 10, 12]
    assert [i for i, w in enumerate(why) if w == "cap"] == [7, 9]
    summary = summary_of(made)
    assert summary["why"] == {w: why.count(w) for w in set(why)}
    assert summary["sources"] == {"a": [15, 4], "b": [15, 2]}
    assert made.manifest.metrics["over_cap"] == 2
    assert made.manifest.metrics["leaks"] == 1


def test_the_summary_holds_what_the_page_draws(pool: str, tmp_path: Path) -> None:
    made = Nearest(pool=pool, count=8).to(tmp_path / "out")
    summary = summary_of(made)
    assert (summary["rows"], summary["chosen"]) == (30, 8)
    shown = {line["row"]: line for line in summary["shown"]}
    assert len(shown) == 30
    assert shown[2]["like"]["turns"][0] == ["user", "Question 1?"]
    assert [q["name"] for q in summary["queries"]] == ["q0", "q1"]
    assert sum(q["rows"] for q in summary["queries"]) == 8
    assert sum(summary["score"]["pool"]) == 30
    assert sum(summary["score"]["chosen"]) == 8
    assert len(summary["map"]["x"]) == 30
    assert sum(summary["map"]["chosen"]) == 8
    assert sum(summary["map"]["explained"]) == pytest.approx(1, abs=1e-3)
    assert sum(summary["nearest"]["chosen"]) == 8
    assert sum(summary["nearest"]["left"]) == 22


def test_the_map_shows_distances_and_the_nearest_is_another_row(pool: str, tmp_path: Path) -> None:
    summary = summary_of(Nearest(pool=pool, count=8).to(tmp_path / "out"))
    found = summary["map"]
    points = np.stack([found["x"], found["y"]], axis=1)
    angles = np.linspace(0, np.pi, 30)[found["row"]]
    real = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    wanted = np.linalg.norm(real[:, None] - real[None], axis=2)
    got = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.testing.assert_allclose(got, wanted, atol=2e-3)
    step = np.pi / 29
    # Chosen are 0, 1, 3, 4, 6, 7, 9, 10: each has a neighbour one step away.
    assert summary["nearest"]["median"]["chosen"] == pytest.approx(np.cos(step), abs=1e-3)


def test_a_further_file_adds_its_bad_rows_to_those_of_the_pool(pool: str, tmp_path: Path) -> None:
    held_out = tmp_path / "held.jsonl"
    good = "".join(f'{{"prompt": "Is it {i}?"}}\n' for i in range(20))
    held_out.write_text(good + '{"prompt": 5}\n')
    made = Random(pool=pool, count=2, held_out=str(held_out)).to(tmp_path / "out")
    (bad,) = [json.loads(x) for x in made.path("rejected.jsonl").read_text().splitlines()]
    assert (bad["file"], bad["line"]) == ("held.jsonl", 21)


def test_bad_caps_and_a_pool_of_test_items_are_told(pool: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="caps name 'c', which no row has"):
        Length(pool=pool, caps={"c": 0.5}).to(tmp_path / "out")
    with pytest.raises(ValueError, match=r"a share lies in 0\.\.1"):
        Length(pool=pool, caps={"a": 1.5})
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Length(pool=pool, count=0)
    with pytest.raises(DataError, match="no row of the pool may be chosen"):
        Length(pool=pool, held_out=pool).to(tmp_path / "out")


def test_scores_that_are_no_numbers_name_their_rows() -> None:
    with pytest.raises(DataError, match="1 rows have no loss: rows 1"):
        by_score(np.array([1.0, np.nan, 2.0]), np.arange(3), "loss")
    ranking = by_score(np.array([1.0, np.nan, 2.0]), np.array([0, 2]), "loss")
    assert ranking.first(5).tolist() == [2, 0]


def test_a_file_of_chosen_rows_reads_back(pool: str, tmp_path: Path) -> None:
    made = Length(pool=pool, count=3).to(tmp_path / "out")
    assert [row.prompt for row in read(made.folder)] == [f"Question {i}?" for i in range(3)]
