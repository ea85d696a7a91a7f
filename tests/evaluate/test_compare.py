"""Comparison: pairing on seed and question, intervals by hand, and mismatches by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilth.errors import DataError
from tilth.evaluate import Compare


def scores(folder: Path, values: dict[tuple[int, str], float], skill: str = "lists") -> str:
    folder.mkdir()
    rows = [
        {"seed": s, "item": i, "skill": skill, "level": 1, "score": v, "prompt": "", "output": ""}
        for (s, i), v in values.items()
    ]
    (folder / "scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(folder / "scores.jsonl")


@pytest.fixture
def base() -> dict[tuple[int, str], float]:
    rng = np.random.default_rng(0)
    return {(s, f"i{n}"): float(rng.random() < 0.4) for s in (101, 102, 103) for n in range(40)}


def compared(tmp_path: Path, **settings: Any) -> dict[str, Any]:
    made = Compare(**settings).to(tmp_path / "verdict")
    return json.loads(made.path("comparison.json").read_text())


def test_the_difference_is_paired(tmp_path: Path, base: dict[tuple[int, str], float]) -> None:
    better = {key: min(1.0, value + 0.25) for key, value in base.items()}
    shuffled_order = dict(sorted(better.items(), reverse=True))
    result = compared(
        tmp_path,
        baseline=scores(tmp_path / "a", base),
        arms={"tuned": scores(tmp_path / "b", shuffled_order)},
    )
    values = np.array(list(base.values()))
    gain = result["differences"]["tuned"]["estimate"]
    assert gain["value"] == pytest.approx(0.25 * np.mean(values == 0))
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert result["differences"]["tuned"]["p"] < 0.001
    assert result["arms"]["base"]["estimate"]["value"] == pytest.approx(values.mean())
    assert result["differences"]["tuned"]["by_skill"]["lists"]["value"] == gain["value"]
    assert result["seeds"] == [101, 102, 103]
    assert result["items_per_seed"] == 40
    assert "lists" in result["arms"]["tuned"]["chance"]


def test_equal_arms_differ_by_nothing(tmp_path: Path, base: dict[tuple[int, str], float]) -> None:
    path = scores(tmp_path / "a", base)
    result = compared(tmp_path, baseline=path, arms={"same": path}, baseline_name="plain")
    gain = result["differences"]["same"]
    assert (gain["estimate"]["value"], gain["estimate"]["low"], gain["p"]) == (0, 0, 1)
    assert result["baseline"] == "plain"


@pytest.mark.parametrize("side", ["arm", "baseline"])
def test_a_missing_question_is_named(
    tmp_path: Path, base: dict[tuple[int, str], float], side: str
) -> None:
    less = {key: value for key, value in base.items() if key != (102, "i7")}
    first, second = (base, less) if side == "arm" else (less, base)
    with pytest.raises(DataError, match=r"seed 102, item i7"):
        compared(
            tmp_path,
            baseline=scores(tmp_path / "a", first),
            arms={"tuned": scores(tmp_path / "b", second)},
        )


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = scores(tmp_path / "a", {(1, "x"): 1.0})
    Path(path).write_text(Path(path).read_text() + '{"seed": 1}\n')
    with pytest.raises(DataError, match=r"scores\.jsonl:2"):
        compared(tmp_path, baseline=path, arms={"tuned": path})


def test_an_arm_cannot_have_the_name_of_the_baseline() -> None:
    with pytest.raises(ValueError, match="'base' like the baseline"):
        Compare(baseline="x", arms={"base": "y"})
