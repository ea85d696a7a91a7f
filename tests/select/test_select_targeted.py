"""Round-robin, global top and mean-max against a full sort with the canonical score, to the bit."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilth.select
from tilth.errors import TilthError
from tilth.select._best import best_rows, merged
from tilth.select._similarity import Similarity
from tilth.select._vectors import Vectors, exact_dots, rounding
from tilth.select.targeted import Rule, TargetedOrder, global_top, mean_max, round_robin

RULES: tuple[Rule, ...] = ("round_robin", "global_top", "mean_max")

pytestmark = pytest.mark.filterwarnings("ignore:.*not of unit length")


def one_dot(a: np.ndarray, b: np.ndarray) -> float:
    """The canonical score as it is defined: products in float64, added up by numpy.sum."""
    return float(np.sum(a.astype(np.float64) * b.astype(np.float64)))


def naive(
    queries: np.ndarray,
    pool: np.ndarray,
    count: int,
    tasks: Sequence[str] | None = None,
    rule: Rule = "round_robin",
) -> list[tuple[int, int, int, float]]:
    """Row, query, round and score by sorting everything and taking turns one by one."""
    table = [[one_dot(query, row) for row in pool] for query in queries]
    labels: list[Any] = list(range(len(queries))) if tasks is None else list(tasks)
    if rule == "global_top":
        labels = [0] * len(queries)
    groups = [[q for q, x in enumerate(labels) if x == name] for name in dict.fromkeys(labels)]
    scores = [[max(table[q][j] for q in group) for j in range(len(pool))] for group in groups]
    if rule == "mean_max":
        scores = [[float(np.sum(column)) / len(groups) for column in np.array(scores).T.tolist()]]
        groups = [list(range(len(queries)))]
    rankings = [sorted(range(len(pool)), key=lambda j, row=row: (-row[j], j)) for row in scores]
    chosen: dict[int, tuple[int, int, int, float]] = {}
    for turn in range(len(pool)):
        for group, ranking, row in zip(groups, rankings, scores, strict=True):
            j = ranking[turn]
            if j not in chosen and len(chosen) < count:
                query = max(group, key=lambda q: (table[q][j], -q))
                chosen[j] = (j, query, turn + 1, row[j])
    return list(chosen.values())


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def order_of(queries: np.ndarray, pool: Any, count: int, **how: Any) -> list[Any]:
    pulls = TargetedOrder(queries, pool, **how).first(count)
    parts = (pulls.rows, pulls.queries, pulls.rounds, pulls.scores)
    return list(zip(*(part.tolist() for part in parts), strict=True))


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Queries, pool and tasks: clustered, with copies, ties and near-ties, in any float type."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, count = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    d = draw(st.sampled_from([1, 2, 3, 8, 33]))
    centres = rng.normal(size=(draw(st.integers(1, 5)), d))
    spread = draw(st.sampled_from([0, 1e-7, 1e-3, 1]))
    pool = centres[rng.integers(len(centres), size=rows)] + spread * rng.normal(size=(rows, d))
    if draw(st.booleans()):
        pool = pool[rng.integers(rows, size=rows)]
    if draw(st.booleans()):
        pool = np.round(pool) + 0.5  # many scores tie exactly
    pool = unit(pool)
    near = draw(st.booleans())
    queries = pool[rng.integers(rows, size=count)] if near else unit(rng.normal(size=(count, d)))
    kind = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    tasks = draw(st.none() | st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    return queries.astype(kind), pool.astype(kind), tasks


@settings(max_examples=150, deadline=None)
@given(problems(), st.data())
def test_any_block_depth_and_shard_gives_the_full_sort(problem: Any, data: st.DataObject) -> None:
    queries, pool, tasks = problem
    rule = data.draw(st.sampled_from(RULES))
    count = data.draw(st.integers(1, len(pool)))
    cut = data.draw(st.integers(0, len(pool)))
    shards = [part for part in (pool[:cut], pool[cut:]) if len(part)]
    how = {
        "depth": data.draw(st.none() | st.integers(1, 50)),
        "block_rows": data.draw(st.none() | st.integers(1, 50)),
    }
    expected = naive(queries, pool, count, tasks, rule)
    assert order_of(queries, shards, count, tasks=tasks, rule=rule, **how) == expected


@settings(max_examples=40, deadline=None)
@given(problems(), st.data())
def test_a_longer_order_begins_with_the_shorter(problem: Any, data: st.DataObject) -> None:
    queries, pool, tasks = problem
    rule = data.draw(st.sampled_from(RULES))
    order = TargetedOrder(queries, pool, tasks=tasks, rule=rule, depth=1)
    whole = [row for row, *_ in naive(queries, pool, len(pool), tasks, rule)]
    for count in data.draw(st.lists(st.integers(1, len(pool) + 3), min_size=1, max_size=4)):
        assert order.first(count).rows.tolist() == whole[:count]


@settings(max_examples=40, deadline=None)
@given(problems(), st.data())
def test_shards_merge_in_any_order(problem: Any, data: st.DataObject) -> None:
    queries, pool, tasks = problem
    depth = data.draw(st.integers(1, len(pool)))
    borders = sorted(data.draw(st.sets(st.integers(1, max(1, len(pool) - 1)), max_size=3)))
    starts = [0, *(border for border in borders if border < len(pool))]
    similarity = Similarity(Vectors(queries, "queries"), tasks or range(len(queries)))
    parts = [
        best_rows(similarity, Vectors(part, "pool", start), depth)
        for start, part in zip(starts, np.split(pool, starts[1:]), strict=True)
    ]
    whole = best_rows(similarity, Vectors(pool, "pool"), depth)
    found = merged(data.draw(st.permutations(parts)), depth)
    for name in ("rows", "scores", "queries"):
        assert getattr(found, name).tolist() == getattr(whole, name).tolist()


@settings(max_examples=40, deadline=None)
@given(problems(), st.data())
def test_only_allowed_rows_are_chosen(problem: Any, data: st.DataObject) -> None:
    queries, pool, tasks = problem
    allowed = sorted(data.draw(st.sets(st.integers(0, len(pool) - 1), min_size=1)))
    found = order_of(queries, pool, 100, tasks=tasks, allowed=np.array(allowed), block_rows=7)
    among = naive(queries, pool[allowed], 100, tasks)
    assert found == [(allowed[row], *rest) for row, *rest in among]


@pytest.mark.parametrize("allowed", [[0, 3], [-1], [0.5], [True, False, True]])
def test_allowed_rows_must_be_there(allowed: list[Any]) -> None:
    with pytest.raises(TilthError, match="below 3"):
        TargetedOrder(np.eye(3), np.eye(3), allowed=np.array(allowed))


def test_the_turn_is_spent() -> None:
    a, b, c, d = (0.9, 0.8), (0.7, 0.3), (0.5, 0.6), (0.1, 0.1)  # q1: a b c d, q2: a c b d
    pool = np.array([a, b, c, d])
    assert round_robin(np.eye(2), pool, 2).tolist() == [0, 1]
    assert round_robin(np.eye(2), pool, 3).tolist() == [0, 1, 2]
    # All scores of the second query below the first one's third: it gets nothing from global top.
    low = pool * np.array([1, 0.1])
    assert round_robin(np.eye(2), low, 3).tolist() == [0, 1, 2]
    assert global_top(np.eye(2), low[[0, 2, 1, 3]], 2).tolist() == [0, 2]
    assert round_robin(np.eye(2), low[[0, 2, 1, 3]], 3).tolist() == [0, 2, 1]


def test_a_task_with_larger_scores_gains_under_mean_max_only() -> None:
    rng = np.random.default_rng(3)
    queries, pool = unit(rng.normal(size=(6, 8))), unit(rng.normal(size=(200, 8)))
    tasks = ["a", "a", "b", "b", "c", "c"]
    larger = queries * np.array([10, 10, 1, 1, 1, 1])[:, None]
    same = round_robin(queries, pool, 30, tasks=tasks)
    assert round_robin(larger, pool, 30, tasks=tasks).tolist() == same.tolist()
    before, after = (set(mean_max(q, pool, 30, tasks=tasks).tolist()) for q in (queries, larger))
    assert before != after


def test_tasks_take_turns_in_the_order_of_first_appearance() -> None:
    pool = np.eye(3)
    assert round_robin(np.eye(3)[[2, 0, 2]], pool, 2, tasks=["x", "y", "x"]).tolist() == [2, 0]


def test_copies_of_a_row_tie_whatever_the_matrix_product_says() -> None:
    rng = np.random.default_rng(0)
    row = unit(rng.normal(size=(1, 1021)))
    pool = np.repeat(row, 777, axis=0).astype(np.float32)
    queries = unit(rng.normal(size=(3, 1021))).astype(np.float32)
    for block_rows in (1, 5, 64, 1000):
        order = TargetedOrder(queries, pool, block_rows=block_rows, depth=10)
        assert order.first(700).rows.tolist() == list(range(700))


def test_the_plain_float32_definition_where_no_scores_are_close() -> None:
    rng = np.random.default_rng(5)
    # Multiples of 1/512: float32 adds their products without any rounding, in any order.
    queries, pool = (np.round(unit(rng.normal(size=(n, 64))) * 512) / 512 for n in (20, 3000))
    queries, pool = queries.astype(np.float32), pool.astype(np.float32)
    ranked = np.argsort(-(queries @ pool.T), axis=1, kind="stable").T.ravel()
    expected = list(dict.fromkeys(ranked.tolist()))
    assert round_robin(queries, pool, 3000).tolist() == expected
    assert round_robin(queries, pool.astype(np.float16), 500).tolist() == expected[:500]


def test_a_memory_map_and_shards_give_what_the_array_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    queries = unit(rng.normal(size=(5, 24))).astype(np.float32)
    pool = unit(rng.normal(size=(900, 24))).astype(np.float32)
    pool[450:] = pool[:450]  # copies on both sides of a border
    expected = round_robin(queries, pool, 300).tolist()
    np.save(tmp_path / "pool.npy", pool)
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    assert round_robin(queries, mapped, 300).tolist() == expected
    assert round_robin(queries, [mapped[:7], pool[7:600], mapped[600:]], 300).tolist() == expected


def test_the_number_of_threads_changes_nothing() -> None:
    code = (
        "import numpy as np, hashlib\n"
        "from tilth.select import greedy_diverse, round_robin\n"
        "rng = np.random.default_rng(0)\n"
        "base = rng.normal(size=(40, 300)).astype('f4')\n"
        "pool = base[rng.integers(40, size=4000)] + 1e-7 * rng.normal(size=(4000, 300))\n"
        "pool = (pool / np.linalg.norm(pool, axis=1, keepdims=True)).astype('f4')\n"
        "rows = round_robin(pool[::131], pool, 900)\n"
        "kept, why = greedy_diverse(pool, rows, 900, 0.05)\n"
        "found = rows.tobytes() + kept.tobytes() + why.similarity.tobytes()\n"
        "print(len(kept), hashlib.sha256(found).hexdigest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(said) == 1


def test_more_than_there_are_warns_with_both_numbers() -> None:
    with pytest.warns(UserWarning, match=r"12 rows .* has 3"):
        assert round_robin(np.eye(3), np.eye(3), 12).tolist() == [0, 1, 2]


def test_rows_that_are_not_of_unit_length_are_ranked_by_the_dot_product_with_a_warning() -> None:
    pool = np.array([[1.0, 0], [3, 4]])
    with pytest.warns(UserWarning, match="1 rows of pool are not of unit length"):
        assert round_robin(np.eye(2)[:1], pool, 1).tolist() == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = unit(np.random.default_rng(0).normal(size=(50, 96))).astype(np.float16)
        assert len(round_robin(half[:3], half, 10)) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": np.zeros((0, 3))}, "queries"),
        ({"queries": []}, "queries"),
        ({"pool": np.zeros((0, 3))}, "pool"),
        ({"count": 0}, "count is 0"),
        ({"count": -3}, "count is -3"),
        ({"queries": np.eye(2)}, "2 dimensions, the rows of the pool 3"),
        ({"queries": np.array([[1, np.nan, 0]])}, "NaN or infinity: rows 0"),
        ({"queries": np.array([[1, 0, 0], [0, 0, 0]])}, "are zero: rows 1"),
        ({"pool": np.array([[1, 0, 0], [0, np.nan, 1], [np.inf, 0, 0]])}, "infinity: rows 1, 2"),
        ({"pool": np.array([[1, 0, 0], [0, 0, 0]])}, "are zero: rows 1"),
        ({"pool": np.array([[1, 0, 0], [1e300, 0, 0]])}, "too long or too short .* rows 1"),
        ({"pool": np.array([["a"]])}, "rows of numbers"),
        ({"tasks": ["a"]}, "1 tasks for 3 queries"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"queries": np.eye(3), "pool": np.eye(3), "count": 2} | change
    with pytest.raises(TilthError, match=message):
        round_robin(**asked)


def test_all_broken_rows_of_the_pool_are_named() -> None:
    pool = np.repeat(np.eye(4), 200, axis=0).astype(np.float32)
    pool[[3, 777]] = np.nan
    with pytest.raises(TilthError, match="2 rows hold NaN or infinity: rows 3, 777"):
        TargetedOrder(np.eye(4), pool, block_rows=64).first(5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7, 8, 9, 127, 128, 129, 1000, 4096]))
def test_a_canonical_score_does_not_depend_on_what_is_computed_with_it(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(2, 9, d)).astype(np.float32).astype(np.float64)
    together = exact_dots(left, right)
    assert together.tolist() == [one_dot(a, b) for a, b in zip(left, right, strict=True)]
    assert exact_dots(left[3:4], right[3:4])[0] == together[3]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 64, 700]))
def test_fast_scores_lie_within_their_stated_error(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    queries, pool = (unit(np.exp(3 * rng.normal(size=(8, d)))) for _ in range(2))
    fast = Similarity(Vectors(queries, "queries"), range(8)).fast(pool.astype(np.float32))
    exact = np.array([[one_dot(q, row) for row in pool] for q in queries])
    assert np.abs(fast - exact).max() <= rounding(d)


def test_the_package_offers_both_kernels() -> None:
    assert tilth.select.round_robin is round_robin
    assert callable(tilth.select.greedy_diverse)
