"""The greedy filter against looking at rows one by one with the canonical cosine, to the bit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.errors import TilthError
from tilth.select import greedy_diverse

pytestmark = pytest.mark.filterwarnings("ignore:.* rows were to be kept")

Why = dict[int, tuple[int | None, float | None]]


def cosine(a: np.ndarray, b: np.ndarray) -> np.float32:
    """The canonical cosine as it is defined."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.sqrt(np.sum(a * a)) * np.sqrt(np.sum(b * b))
    return np.float32(np.sum(a * b) / lengths)


def naive(rows: np.ndarray, order: Any, budget: int, threshold: float) -> tuple[list[int], Why]:
    kept: list[int] = []
    why: Why = {}
    for row in order:
        if len(kept) == budget:
            why[row] = None, None
            continue
        cosines = [cosine(rows[other], rows[row]) for other in kept]
        if cosines and max(cosines) > np.float32(threshold):
            why[row] = kept[int(np.argmax(cosines))], float(max(cosines))
        else:
            kept.append(row)
    return kept, why


def filtered(*given: Any, **how: Any) -> tuple[list[int], Why]:
    kept, reasons = greedy_diverse(*given, **how)
    return kept.tolist(), {r: (why.similar_to, why.similarity) for r, why in reasons.items()}


@st.composite
def pools(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Rows of any type and length, clustered, with copies; and some of them in some order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, d = draw(st.integers(1, 40)), draw(st.sampled_from([1, 2, 3, 8, 33]))
    centres = rng.normal(size=(draw(st.integers(1, 5)), d))
    spread = draw(st.sampled_from([0, 1e-7, 1e-2, 0.3, 1]))
    rows = centres[rng.integers(len(centres), size=count)] + spread * rng.normal(size=(count, d))
    if draw(st.booleans()):
        rows = rows[rng.integers(count, size=count)] * rng.choice([1, 2, 3], size=(count, 1))
    if draw(st.booleans()):
        rows = np.round(rows) + 0.5
    kind = draw(st.sampled_from([np.float16, np.float32, np.float64, np.int8]))
    rows = (rows * (9 if kind is np.int8 else 1)).astype(kind)
    rows[(rows == 0).all(axis=1)] = 1
    return rows, rng.permutation(count)[: draw(st.integers(1, count))].tolist()


@settings(max_examples=200, deadline=None)
@given(pools(), st.data())
def test_any_block_keeps_what_looking_one_by_one_keeps(pool: Any, data: st.DataObject) -> None:
    rows, order = pool
    pairs = st.tuples(st.sampled_from(order), st.sampled_from(order))
    at = pairs.map(lambda pair: min(1.0, float(cosine(rows[pair[0]], rows[pair[1]]))))
    threshold = data.draw(st.sampled_from([0.9, 0.5, 0.0, -0.3, 1.0]) | at)  # also exactly reached
    budget = data.draw(st.integers(0, len(order) + 1))
    block_rows = data.draw(st.none() | st.integers(1, 20))
    expected = naive(rows, order, budget, threshold)
    assert filtered(rows, order, budget, threshold, block_rows=block_rows) == expected
    # However many first numbers are compared, and whether pairs are finished alone or together.
    first, pair = data.draw(st.integers(1, rows.shape[1])), data.draw(st.sampled_from([0, 32]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tilth.select.diverse._Kept._cheapest", lambda self, sample: first)
        patch.setattr("tilth.select.diverse._PAIR", pair)
        assert filtered(rows, order, budget, threshold, block_rows=block_rows) == expected


@settings(max_examples=30, deadline=None)
@given(pools(), st.data())
def test_a_larger_budget_begins_with_the_smaller(pool: Any, data: st.DataObject) -> None:
    rows, order = pool
    whole = filtered(rows, order, len(order))[0]
    budget = data.draw(st.integers(0, len(order)))
    assert filtered(rows, order, budget, block_rows=3)[0] == whole[:budget]


def test_many_chunks_of_kept_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.normal(size=(60, 12)), 5, axis=0) + 0.1 * rng.normal(size=(300, 12))
    order = rng.permutation(300).tolist()
    expected = naive(rows, order, 50, 0.8)
    for chunk in (1, 7, 4096):
        monkeypatch.setattr("tilth.select.diverse._CHUNK", chunk)
        assert filtered(rows, order, 50, 0.8, block_rows=16) == expected


@pytest.mark.parametrize("block_rows", [None, 1, 2, 3])
def test_a_rejected_row_rejects_nobody(block_rows: int | None) -> None:
    a, c, b = (1, 0, 0), (0.96, 0.28, 0), (0.8, 0.6, 0)
    for kind in (np.float16, np.float32, np.float64):
        kept, reasons = greedy_diverse(np.array([a, c, b], kind), [0, 1, 2], 2, 0.9)
        assert kept.tolist() == [0, 2]
        assert str(reasons[1]) == "too similar to kept row 0: cosine 0.9600"
        assert list(reasons) == [1]
        assert 0 not in reasons


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [0.28, 0.6, 0.8, 0.96])
def test_a_similarity_equal_to_the_threshold_is_kept(kind: type, threshold: float) -> None:
    rows = np.array([(1, 0), (threshold, {0.28: 0.96, 0.6: 0.8, 0.8: 0.6, 0.96: 0.28}[threshold])])
    assert filtered(rows.astype(kind), [0, 1], 2, threshold)[0] == [0, 1]
    assert filtered(rows.astype(kind), [0, 1], 2, threshold - 1e-6)[0] == [0]


def test_the_plain_float32_definition_where_no_cosine_is_close() -> None:
    rng = np.random.default_rng(2)
    rows = np.repeat(rng.normal(size=(150, 64)), 6, axis=0) + 0.2 * rng.normal(size=(900, 64))
    rows = rows.astype(np.float32)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    order = rng.permutation(900).tolist()
    kept: list[int] = []
    for row in order:
        if not kept or (units[kept] @ units[row]).max() <= 0.9:
            kept.append(row)
    assert len(kept) == 150
    assert filtered(rows, order, 900)[0] == kept
    assert filtered(rows * 7, order, 900, block_rows=33)[0] == kept


def test_small_types_give_the_float32_answer() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(-20, 20, size=(300, 4)).astype(np.int8)
    rows[(rows == 0).all(axis=1)] = 1
    expected = filtered(rows.astype(np.float32), range(300), 300)
    for kind in (np.int8, np.int64, np.float16, np.float64):
        assert filtered(rows.astype(kind), range(300), 300) == expected


def test_budgets() -> None:
    rows = np.eye(4)
    assert filtered(rows, [3, 1, 2], 0) == ([], {3: (None, None), 1: (None, None), 2: (None, None)})
    kept, reasons = greedy_diverse(rows, [3, 1, 2], 1)
    assert kept.tolist() == [3]
    assert str(reasons[2]) == "the budget was reached before it"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert filtered(rows, [3, 1, 2], 3) == ([3, 1, 2], {})


def test_a_pool_of_copies_keeps_one_and_says_so_with_both_numbers() -> None:
    rows = np.full((50, 7), 0.3, np.float32)
    with pytest.warns(UserWarning, match="20 rows were to be kept, 1 are: 49 of the 50"):
        kept, reasons = greedy_diverse(rows, range(50), 20)
    assert kept.tolist() == [0]
    assert {why.similar_to for why in reasons.values()} == {0}
    assert {why.similarity for why in reasons.values()} == {1.0}


def test_copies_are_not_above_a_threshold_of_one() -> None:
    row = np.random.default_rng(4).normal(size=(1, 1021))
    assert len(filtered(np.repeat(row, 40, axis=0), range(40), 40, 1.0)[0]) == 40


def test_a_memory_map_gives_what_the_array_gives(tmp_path: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(200, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    expected = filtered(rows, range(200), 60)
    assert filtered(mapped, range(200), 60) == expected
    assert filtered([mapped[:80], mapped[80:]], range(200), 60) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.array([[1, 0], [np.nan, 1], [0, 1]])}, "NaN or infinity: rows 1"),
        ({"embeddings": np.array([[1, 0], [0, 0], [0, 0]])}, "2 rows are zero: rows 1, 2"),
        ({"embeddings": np.zeros(3)}, "rows of numbers"),
        ({"order": [0, 0]}, "row 0 occurs twice"),
        ({"order": [0, 3]}, "no row 3"),
        ({"order": [-1]}, "no row -1"),
        ({"order": [0.5]}, "row numbers"),
        ({"budget": -1}, "budget is -1"),
        ({"threshold": 90}, "threshold is 90"),
        ({"threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_what_cannot_be_filtered_is_an_error(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"embeddings": np.eye(3), "order": [0, 1, 2], "budget": 2} | change
    with pytest.raises(TilthError, match=message):
        greedy_diverse(**asked)


def test_rows_outside_the_order_do_not_matter() -> None:
    rows = np.array([[1, 0], [np.nan, 0], [0, 1]])
    assert filtered(rows, [2, 0], 2) == ([2, 0], {})
    assert filtered(rows, [], 2) == ([], {})
