"""The index of papers, from committed results."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tilth.errors import DataError
from tilth.replicate import Result, papers, show
from tilth.stats import Estimate


def result(system: str, quick: bool = False, **more: Any) -> dict[str, Any]:
    estimate = Estimate(0.291, 0.284, 0.302, 0.95, 4, 160, "bootstrap").as_dict()
    claim = {
        "statement": "manure | helps",
        "direction": "manure > none",
        "metric": "score",
        "published": "+0.3",
        "source": "Table 2",
        "verdict": "reproduced",
        "estimate": estimate,
        "why": "the interval lies above 0",
        "differences": [],
    }
    open_claim = {**claim, "statement": "lime helps", "verdict": "not shown", "estimate": None}
    return {
        "schema": 1,
        "system": system,
        "title": f"What a {system} needs",
        "source": "Nobody 2026",
        "method": "select.length",
        "recipe": f"recipes/{system}.yaml",
        "quick": quick,
        "claims": [claim, {**open_claim, "why": "incomplete: no scores of lime/11"}],
        "arms": [
            {"name": "manure", "role": "method", "settings": {}, "scores": {"score": estimate}}
        ],
        "seeds": {"root": 0, "tuning": [1], "testing": [11, 12]},
        "level": 0.95,
        "cost": {"seconds": 12.0},
        "cells": 8,
        "failed": [{"arm": "lime", "seed": 11, "error": "flooded"}],
        **more,
    }


def write(folder: Path, name: str, body: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(body))


def test_every_claim_stands_beside_its_measurement(tmp_path: Path) -> None:
    write(tmp_path / "results", "field.json", result("field"))
    write(tmp_path / "results", "barn.json", result("barn"))
    page = papers(tmp_path / "results", tmp_path / "docs" / "papers.md").read_text()
    assert page.index("What a barn needs") < page.index("What a field needs")
    row = r"| manure \| helps | +0.3 (Table 2) | +0.29 [0.28, 0.30] | reproduced |"
    assert row in page
    assert "| lime helps | +0.3 (Table 2) | incomplete: no scores of lime/11 | not shown |" in page
    assert "Recipe: `recipes/field.yaml`" in page
    assert "2 test seeds, 95% intervals" in page
    assert str(tmp_path) not in page


def test_a_full_result_is_shown_rather_than_a_quick_one(tmp_path: Path) -> None:
    write(tmp_path / "results", "field.json", result("field"))
    write(tmp_path / "results", "field.quick.json", result("field", True, title="quick one"))
    write(tmp_path / "results", "barn.quick.json", result("barn", True))
    page = papers(tmp_path / "results", tmp_path / "papers.md").read_text()
    assert "quick one" not in page
    assert "tilth replicate barn --quick" in page


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    assert "No results" in papers(tmp_path / "none", tmp_path / "papers.md").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"system": "x"}'])
def test_a_strange_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(DataError, match=r"odd\.json"):
        papers(tmp_path, tmp_path / "papers.md")


def test_the_table_on_screen(tmp_path: Path) -> None:
    console = Console(width=120, record=True, file=StringIO())
    show(Result(tmp_path / "field.json", result("field")), console)
    text = console.export_text()
    assert "+0.29 [0.28, 0.30]" in text
    assert "reproduced" in text
    assert "failed: lime/11: flooded" in text
