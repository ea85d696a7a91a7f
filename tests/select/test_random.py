"""Random selection: uniform, without replacement, in equal shares where asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.method import Work
from tilth.select import Random


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    kinds = ["a"] * 3 + ["b"] * 20 + ["c"] * 17
    write_rows(path, (Example.pair(f"q{i}", f"r{i}", skill=k) for i, k in enumerate(kinds)))
    return path


def test_draws_without_replacement(pool: Path, tmp_path: Path) -> None:
    made = Random(pool=str(pool), count=12).to(tmp_path / "out")
    prompts = [row.prompt for row in read(made.folder)]
    assert len(set(prompts)) == 12
    lines = [json.loads(x) for x in (made.folder / "selection.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert sum(line["kept"] for line in lines) == 12
    assert {line["reason"] for line in lines} == {"drawn", "not drawn"}


def test_the_seed_decides(pool: Path, tmp_path: Path) -> None:
    def drawn(name: str, seed: int) -> bytes:
        made = Random(pool=str(pool), count=12).to(tmp_path / name, seed=seed)
        return made.path("rows.jsonl").read_bytes()

    assert drawn("one", 0) == drawn("two", 0)
    assert drawn("one", 0) != drawn("three", 1)


def test_balanced_shares_are_exact(pool: Path, tmp_path: Path) -> None:
    made = Random(pool=str(pool), count=21, balance="skill").to(tmp_path / "out")
    skills = [row.meta["skill"] for row in read(made.folder)]
    assert {s: skills.count(s) for s in "abc"} == {"a": 3, "b": 9, "c": 9}


def test_too_many_gives_all_and_names_both_numbers(pool: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = Random(pool=str(pool), count=41).to(tmp_path / "out", say=said.append)
    assert made.manifest.metrics["rows_out"] == 40
    assert any("only 40 rows can be chosen, 41 were asked for" in line for line in said)


def test_an_unknown_balance_field_names_the_row(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 0"):
        Random(pool=str(pool), count=4, balance="skil").to(tmp_path / "out")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 200), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_shares_are_as_equal_as_possible(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], count: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("shares")
    kinds = [kind for kind, size in enumerate(sizes) for _ in range(size)]
    write_rows(
        folder / "pool.jsonl", (Example.pair(f"{i}", "r", skill=k) for i, k in enumerate(kinds))
    )
    chosen = Random(pool=str(folder / "pool.jsonl"), count=count, balance="skill")
    rows = read(chosen.to(folder / "out", seed=seed, say=lambda line: None).folder)
    shares = [sum(row.meta["skill"] == kind for row in rows) for kind in range(len(sizes))]
    assert sum(shares) == min(count, sum(sizes))
    open_shares = [s for s, size in zip(shares, sizes, strict=True) if s < size]
    if open_shares:  # who could still give is never more than one below anybody
        assert min(open_shares) >= max(shares) - 1


def test_the_published_example_of_a_balanced_draw(tmp_path: Path) -> None:
    kinds = ["small"] * 5 + ["middle"] * 50 + ["large"] * 500
    rows = (Example.pair(f"{i}", "x", skill=k) for i, k in enumerate(kinds))
    write_rows(tmp_path / "pool.jsonl", rows)

    def drawn(seed: int) -> list[Example]:
        chosen = Random(pool=str(tmp_path / "pool.jsonl"), count=150, balance="skill")
        return list(read(chosen.to(tmp_path / f"out-{seed}", seed=seed).folder))

    first, second = drawn(0), drawn(1)
    counts = {k: sum(r.meta["skill"] == k for r in first) for k in ("small", "middle", "large")}
    assert counts == {"small": 5, "middle": 50, "large": 95}
    assert {r.id for r in first} != {r.id for r in second}


@pytest.mark.parametrize("balance", ["", "skill"])
def test_every_row_of_a_group_has_the_same_chance(tmp_path: Path, balance: str) -> None:
    kinds = ["a"] * 6 + ["b"] * 14
    rows = [Example.pair(f"{i}", "x", skill=k) for i, k in enumerate(kinds)]
    write_rows(tmp_path / "pool.jsonl", rows)
    pool = read(tmp_path / "pool.jsonl")
    method = Random(pool=str(tmp_path / "pool.jsonl"), count=8, balance=balance)
    draws, hits = 4000, np.zeros((2, len(rows)))
    for seed in range(draws):
        work = Work(tmp_path, tmp_path, seed)
        order = method.rank(pool, np.arange(len(rows)), work).first(8)
        hits[0, order] += 1
        hits[1, order[0]] += 1  # the first place, too
    for counts, drawn in zip(hits, (8, 1), strict=True):
        for kind in "ab" if balance else ["ab"]:
            own = np.array([k in kind for k in kinds])
            share = drawn / 2 if balance else drawn
            expected = draws * share / own.sum()
            spread = expected * (1 - share / own.sum())
            squares = float(((counts[own] - expected) ** 2 / spread).sum()) * (1 - 1 / own.sum())
            # Chi-square with as many degrees of freedom as there are rows less one.
            assert chi2.sf(squares, own.sum() - 1) > 1e-4
