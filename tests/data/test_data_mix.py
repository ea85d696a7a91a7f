"""Mixing with exact totals."""

from __future__ import annotations

import hashlib
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.data import Example, allocate, mix, write_rows
from tilth.errors import DataError

WEIGHTS = st.dictionaries(
    st.sampled_from("abcdef"), st.floats(0, 1e12, allow_subnormal=True), min_size=1
).filter(lambda weights: any(weights.values()))


def pool(**sizes: int) -> dict[str, list[Example]]:
    return {n: [Example.pair(f"{n} {i}", "ok") for i in range(k)] for n, k in sizes.items()}


@given(WEIGHTS, st.integers(0, 10**6))
def test_totals_are_exact_and_shares_within_one_row(weights: dict[str, float], total: int) -> None:
    counts = allocate(weights, total)
    whole = sum(map(Fraction, weights.values()))
    assert sum(counts.values()) == total
    for name, weight in weights.items():
        assert abs(counts[name] - total * Fraction(weight) / whole) < 1


@given(WEIGHTS, st.integers(0, 300), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 99)))
def test_limits_hold_and_the_rest_is_shared_by_weight(
    weights: dict[str, float], total: int, limits: dict[str, int]
) -> None:
    usable = {name: weight for name, weight in weights.items() if weight > 0}
    if sum(limits.get(name, total) for name in usable) < total:
        with pytest.raises(DataError, match="can give"):
            allocate(weights, total, limits)
        return
    counts = allocate(weights, total, limits)
    assert sum(counts.values()) == total
    assert all(counts[name] <= limits.get(name, total) for name in weights)
    assert all(counts[name] == 0 for name in weights if name not in usable)
    free = [name for name in usable if counts[name] < limits.get(name, total + 1)]
    for a in free:  # among sources below their limits, a heavier one never gives less
        for b in free:
            assert usable[a] <= usable[b] or counts[a] >= counts[b]


def test_hand_computed_shares() -> None:
    # 10 rows at 5:3:1 -> 5.56, 3.33, 1.11 -> 5, 3, 1 and one more for the largest remainder
    assert allocate({"a": 5, "b": 3, "c": 1}, 10) == {"a": 6, "b": 3, "c": 1}


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_unusable_weights_are_named(weight: float) -> None:
    with pytest.raises(DataError, match=r"weights\.b"):
        allocate({"a": 1, "b": weight}, 10)


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        path = tmp_path / "mixed.jsonl"
        write_rows(path, mix(pool(a=50, b=50), 40, seed=seed, weights={"a": 3, "b": 1}))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_rows_are_drawn_without_replacement_and_say_whence() -> None:
    mixed = mix(pool(a=30, b=20), 40, seed=0, weights={"a": 1, "b": 1})
    assert mixed.counts == {"a": 20, "b": 20}
    assert len(mixed) == len({row.id for row in mixed}) == 40
    assert all(row.prompt.startswith(row.meta["mixed_from"]) for row in mixed)
    names = "".join(row.meta["mixed_from"] for row in mixed)
    assert names != "".join(sorted(names)), "the sources are shuffled together"
    assert [row.id for row in mixed[3:5]] == [mixed[3].id, mixed[4].id]


def test_sizes_are_the_default_weights() -> None:
    assert mix(pool(a=30, b=10), 8, seed=0).counts == {"a": 6, "b": 2}


def test_another_source_does_not_change_what_the_first_gives() -> None:
    two = mix(pool(a=30, b=30), 20, seed=0, weights={"a": 1, "b": 1})
    three = mix(pool(a=30, b=30, c=30), 30, seed=0, weights={"a": 1, "b": 1, "c": 1})
    assert {row.id for row in two} < {row.id for row in three}


def test_caps_and_repeats() -> None:
    weights = {"a": 1.0, "b": 1.0}
    assert mix(pool(a=9, b=99), 40, seed=0, weights=weights).counts == {"a": 9, "b": 31}
    capped = mix(pool(a=99, b=99), 20, seed=0, weights=weights, caps={"b": 5})
    assert capped.counts == {"a": 15, "b": 5}
    again = mix(pool(a=9, b=99), 40, seed=0, weights=weights, repeat=3)
    times = Counter(row.id for row in again if row.meta["mixed_from"] == "a")
    assert again.counts == {"a": 20, "b": 20}
    assert set(times.values()) == {2, 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"total": 99}, "can give 18 rows"),
        ({"total": 5, "weights": {"a": 1, "z": 1}}, "no source named 'z'"),
        ({"total": 5, "weights": {"a": 1}}, "'b' has no weight"),
        ({"total": 5, "caps": {"z": 1}}, "no source named 'z'"),
        ({"total": 5, "repeat": 0}, "repeat"),
        ({"total": -1}, "mixture of -1 rows"),
    ],
)
def test_impossible_mixtures_are_errors(options: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        mix(pool(a=9, b=9), seed=0, **options)


def test_an_empty_mixture() -> None:
    assert list(mix(pool(a=3), 0, seed=0)) == []
