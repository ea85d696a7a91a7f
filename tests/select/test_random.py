"""Random selection: uniform, without replacement, in equal shares where asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.select import Random
from tilth.select.random import equal_shares


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    kinds = ["a"] * 3 + ["b"] * 20 + ["c"] * 17
    write_rows(path, (Example.pair(f"q{i}", f"r{i}", skill=k) for i, k in enumerate(kinds)))
    return path


def test_draws_without_replacement_in_pool_order(pool: Path, tmp_path: Path) -> None:
    made = Random(data=str(pool), count=12).to(tmp_path / "out")
    prompts = [row.prompt for row in read(made.folder)]
    places = [int(p[1:]) for p in prompts]
    assert len(set(prompts)) == 12
    assert places == sorted(places)
    lines = [json.loads(x) for x in (made.folder / "selection.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert sum(line["kept"] for line in lines) == 12
    assert {line["reason"] for line in lines} == {"drawn", "not drawn"}


def test_the_seed_decides(pool: Path, tmp_path: Path) -> None:
    def drawn(name: str, seed: int) -> bytes:
        made = Random(data=str(pool), count=12).to(tmp_path / name, seed=seed)
        return made.path("rows.jsonl").read_bytes()

    assert drawn("one", 0) == drawn("two", 0)
    assert drawn("one", 0) != drawn("three", 1)


def test_balanced_shares_are_exact(pool: Path, tmp_path: Path) -> None:
    made = Random(data=str(pool), count=21, balance="skill").to(tmp_path / "out")
    skills = [row.meta["skill"] for row in read(made.folder)]
    assert {s: skills.count(s) for s in "abc"} == {"a": 3, "b": 9, "c": 9}


def test_too_many_names_both_numbers(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"41 rows are asked for, but the pool has 40"):
        Random(data=str(pool), count=41).to(tmp_path / "out")


def test_an_unknown_balance_field_names_the_row(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 0"):
        Random(data=str(pool), count=4, balance="skil").to(tmp_path / "out")


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.data())
def test_shares_sum_exactly_and_are_as_equal_as_possible(
    sizes: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, sum(sizes)))
    order = np.array(data.draw(st.permutations(range(len(sizes)))))
    shares = equal_shares(count, sizes, order)
    assert shares.sum() == count
    assert (shares <= sizes).all()
    open_shares = [s for s, size in zip(shares, sizes, strict=True) if s < size]
    if open_shares:  # who could still give is never more than one below anybody
        assert min(open_shares) >= max(shares) - 1
