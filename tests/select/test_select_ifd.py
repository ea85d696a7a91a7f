"""IFD: both losses are those of the very same answer tokens, and their ratio is the order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ARCHITECTURES, Architecture

from tilth.almanac.pool import pool as almanac_pool
from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.models.local import LocalEngine
from tilth.select import IFD


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    write_rows(path, almanac_pool(10, seed=5))
    return path


def lines_of(made: Any) -> list[dict[str, Any]]:
    return [json.loads(x) for x in made.path("selection.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_ratio_is_that_of_two_losses_of_the_same_tokens(
    models: dict[Architecture, Path], name: Architecture, pool: Path, tmp_path: Path
) -> None:
    made = IFD(pool=str(pool), count=10, model=str(models[name])).to(tmp_path / "out")
    engine = LocalEngine.open(str(models[name]))
    for row in list(read(made.folder))[:3]:
        before, answer = f"Question: {row.prompt}\nAnswer:", f" {row.answer}"
        behind, alone = engine.score([(before, answer), ("", answer)])
        assert behind.tokens == alone.tokens
        assert row.meta["scores"]["IFD"] == pytest.approx(behind.mean / alone.mean, abs=1e-4)
    ratios = [row.meta["scores"]["IFD"] for row in read(made.folder)]
    assert ratios == sorted(ratios, reverse=True)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
def test_the_chat_form_scores_the_last_turn_with_its_end(
    models: dict[Architecture, Path], name: Architecture, pool: Path, tmp_path: Path
) -> None:
    made = IFD(pool=str(pool), count=2, form="chat", model=str(models[name])).to(tmp_path / "out")
    engine = LocalEngine.open(str(models[name]))
    for row in read(made.folder):
        behind, alone = engine.score_chat([row.messages, row.messages[-1:]])
        assert row.meta["scores"]["IFD"] == pytest.approx(behind.mean / alone.mean, abs=1e-4)


def test_ratios_of_1_or_more_stay_unless_they_shall_go(
    tiny: Path, pool: Path, tmp_path: Path
) -> None:
    every = IFD(pool=str(pool), count=10, model=str(tiny)).to(tmp_path / "every")
    above = [line for line in lines_of(every) if line["score"] >= 1]
    assert 0 < len(above) < 10
    assert every.manifest.metrics["ratios_of_1_or_more"] == len(above)
    below = IFD(pool=str(pool), count=10, model=str(tiny), discard=True).to(tmp_path / "below")
    assert all(row.meta["scores"]["IFD"] < 1 for row in read(below.folder))
    assert below.manifest.metrics["rows_out"] == 10 - len(above)
    assert sum("1 or more, left out" in line["reason"] for line in lines_of(below)) == len(above)


def test_where_all_ratios_go_it_is_told(tiny: Path, pool: Path, tmp_path: Path) -> None:
    every = IFD(pool=str(pool), count=10, model=str(tiny)).to(tmp_path / "every")
    ids = {line["id"] for line in lines_of(every) if line["score"] >= 1}
    write_rows(tmp_path / "above.jsonl", (row for row in read(pool) if row.id in ids))
    method = IFD(pool=str(tmp_path / "above.jsonl"), model=str(tiny), discard=True)
    with pytest.raises(DataError, match="every ratio is 1 or more"):
        method.to(tmp_path / "out")


def test_the_answer_is_cut_alike_in_both_conditions(tiny: Path, tmp_path: Path) -> None:
    rows = [Example.pair("Why? " * 300, "Because of the rain. " * 300), Example.pair("q", "a b")]
    write_rows(tmp_path / "pool.jsonl", rows)
    for form in ("plain", "chat"):
        method = IFD(pool=str(tmp_path / "pool.jsonl"), count=2, form=form, model=str(tiny))
        made = method.to(tmp_path / form)
        assert made.manifest.metrics["cut"] == 1
        assert made.manifest.metrics["rows_out"] == 2
