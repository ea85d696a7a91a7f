"""Every row is trained on once per epoch, in an order that follows from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.tune._batches import Collator, Order, pack
from tilth.tune._corpus import IGNORED, Corpus, gather

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=120).map(np.array)
MODES = ("plain", "grouped", "packed")


def corpus_of(lengths: np.ndarray) -> Corpus:
    """Rows whose tokens tell their row: row r is ``100 r, 100 r + 1, ...``; all are targets."""
    rows = [(np.arange(n) + 100 * r, np.ones(n, dtype=bool)) for r, n in enumerate(lengths)]
    return gather(rows, max_length=1000, vocabulary=10**9)[0]


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, capacity=st.integers(40, 100))
def test_packing_keeps_every_row_whole_and_no_bin_overflows(
    lengths: np.ndarray, capacity: int
) -> None:
    bins = pack(lengths, capacity)
    assert sorted(np.concatenate(bins)) == list(range(len(lengths)))
    assert all(lengths[rows].sum() <= capacity for rows in bins)
    # Best fit leaves no two bins that would fit into one.
    sums = sorted(int(lengths[rows].sum()) for rows in bins)
    assert len(sums) < 2 or sums[0] + sums[1] > capacity


def test_packing_finds_the_perfect_fit() -> None:
    bins = pack(np.array([6, 4, 7, 3, 10]), 10)
    assert sorted(map(tuple, bins)) == [(0, 1), (2, 3), (4,)]


@pytest.mark.parametrize("batching", MODES)
@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 7), seed=st.integers(0, 99))
def test_an_epoch_holds_every_row_once_and_only_the_last_batch_is_short(
    batching: str, lengths: np.ndarray, size: int, seed: int
) -> None:
    order = Order(lengths, batch_size=size, batching=batching, capacity=40, seed=seed)
    again = Order(lengths, batch_size=size, batching=batching, capacity=40, seed=seed)
    assert order.fingerprint == again.fingerprint
    for epoch in (0, 1):
        batches = order.of_epoch(epoch)
        assert batches == again.of_epoch(epoch)
        assert len(batches) == len(order)
        assert all(len(batch) == size for batch in batches[:-1])
        rows = np.concatenate([order.items[i] for batch in batches for i in batch])
        assert sorted(rows) == list(range(len(lengths)))


def test_epochs_and_seeds_differ() -> None:
    lengths = np.arange(2, 66)
    order = Order(lengths, batch_size=4, batching="grouped", capacity=100, seed=1)
    other = Order(lengths, batch_size=4, batching="grouped", capacity=100, seed=2)
    assert order.of_epoch(0) != order.of_epoch(1)
    assert order.of_epoch(0) != other.of_epoch(0)
    assert order.fingerprint != other.fingerprint


def test_grouping_leaves_little_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 200, 400)

    def padded(batching: str) -> int:
        order = Order(lengths, batch_size=8, batching=batching, capacity=200, seed=0)
        return sum(int(lengths[batch].max()) * len(batch) for batch in order.of_epoch(0))

    assert padded("grouped") < 1.1 * lengths.sum() < 1.5 * lengths.sum() < padded("plain")


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("batching", MODES)
@settings(max_examples=20, deadline=None)
@given(lengths=LENGTHS)
def test_a_batch_holds_the_tokens_of_its_rows_and_nothing_else(
    batching: str, fold: bool, lengths: np.ndarray
) -> None:
    corpus = corpus_of(lengths)
    order = Order(lengths, batch_size=5, batching=batching, capacity=40, seed=0)
    collate = Collator(corpus, order, pad=7, fold=fold)
    for chosen in order.of_epoch(0):
        batch = collate(chosen)
        ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
        shared = batch.get("position_ids")
        positions = np.tile(np.arange(ids.shape[1]), (len(ids), 1)) if shared is None else shared
        rows = np.concatenate([order.items[i] for i in chosen])
        assert batch["tokens"] == lengths[rows].sum()
        found = {}
        for b in range(len(ids)):
            begins = [t for t in range(ids.shape[1]) if positions[b][t] == 0]
            for begin, end in zip(begins, [*begins[1:], ids.shape[1]], strict=True):
                row = int(ids[b, begin]) // 100
                n = int(lengths[row])
                found[row] = n
                wanted = np.arange(n) + 100 * row
                assert (ids[b, begin : begin + n] == wanted).all()
                assert (ids[b, begin + n : end] == 7).all()
                # The last token predicts nothing, above all not the first one of the next row.
                assert (labels[b, begin : begin + n - 1] == wanted[1:]).all()
                assert (labels[b, begin + n - 1 : end] == IGNORED).all()
        assert sorted(found) == sorted(rows)


def test_folding_fills_lines_that_would_be_padding() -> None:
    corpus = corpus_of(np.array([30, 10, 12, 8, 20, 9]))
    order = Order(corpus.lengths, batch_size=6, batching="plain", capacity=40, seed=0)
    assert Collator(corpus, order, pad=0)([*range(6)])["input_ids"].shape == (6, 30)
    assert Collator(corpus, order, pad=0, fold=True)([*range(6)])["input_ids"].shape == (3, 30)
