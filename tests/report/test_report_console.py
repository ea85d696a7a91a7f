"""The tables on screen, and how numbers are written."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from report_fixture import RunBuilder, quickstart_run
from rich.console import Console

import tilth.report
from tilth.report import numbers


def shown(folder: Path, width: int = 100) -> str:
    console = Console(width=width, file=StringIO(), record=True)
    tilth.report.show(folder, console)
    return console.export_text()


def test_scores_difference_and_cost_are_on_screen(tmp_path: Path) -> None:
    text = shown(quickstart_run(tmp_path / "q").finish())
    assert "tuned beats base by" in text
    assert "less base" in text
    assert "tuned less this" in text
    assert "600 items, 5 test seeds" in text
    assert "write" in text
    assert "total" in text
    assert "tokens" in text


def test_it_fits_a_narrow_terminal(tmp_path: Path) -> None:
    text = shown(quickstart_run(tmp_path / "q").finish(), width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "1\u202fmin 14\u202fs" in text


def test_a_failed_step_is_told(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "f")
    run.steps.append({"id": "a[red]", "do": "x.y", "status": "failed", "error": "no rows left"})
    text = shown(run.finish("failed"))
    assert "a[red] (x.y): no rows left" in text


def test_cached_steps_are_marked(tmp_path: Path) -> None:
    run = quickstart_run(tmp_path / "c", upto="tuned")
    run.steps[0]["cached"] = True
    assert "write (from an earlier run)" in shown(run.finish())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (812, "812"),
        (999, "999"),
        (1000, "1.00\u202fk"),
        (41_234, "41.2\u202fk"),
        (412_000, "412\u202fk"),
        (999_950, "1.00\u202fM"),
        (3.07e12, "3.07\u202fT"),
        (0.5, "0.50"),
    ],
)
def test_amounts_have_three_digits(value: float, text: str) -> None:
    assert numbers.amount(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0\u202fs"),
        (9.96, "10\u202fs"),
        (59.7, "1\u202fmin 00\u202fs"),
        (252, "4\u202fmin 12\u202fs"),
        (7500, "2\u202fh 05\u202fmin"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


def test_intervals_round_without_hiding_the_side_of_zero() -> None:
    estimate = {"value": 0.0312, "low": 0.0021, "high": 0.0604}
    assert numbers.interval(estimate) == "0.031 [0.002, 0.060]"
    wide = {"value": -0.314, "low": -0.34, "high": -0.28}
    assert numbers.interval(wide, sign=True) == "−0.31 [−0.34, −0.28]"
    assert numbers.score(-0.001) == "0.00"
