"""The self-instruct loop: against a scripted teacher over HTTP, and with a teacher seedling."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_teacher import serve, teach

from tilth.data import read
from tilth.errors import DataError
from tilth.generate import SelfInstruct
from tilth.generate._novelty import NoveltyIndex
from tilth.models.reference import SEEDLINGS

SEEDS = [
    {"instruction": "Write a short letter to a miller.", "output": "Dear miller."},
    {"instruction": "Which of these grows fastest?", "input": "oak, rye", "output": "rye"},
    {"instruction": "Tell me how bread rises.", "output": "Yeast makes gas."},
]


@pytest.fixture
def seeds(tmp_path: Path) -> str:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SEEDS))
    return str(path)


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    with serve() as reference:
        yield reference


def settings(seeds: str, teacher: str, **more: Any) -> SelfInstruct:
    return SelfInstruct(seeds=seeds, teacher=teacher, round_size=2, **{"count": 20, **more})


def test_rows_have_provenance_and_are_novel(seeds: str, teacher: str, tmp_path: Path) -> None:
    made = settings(seeds, teacher).to(tmp_path / "out")
    rows = list(read(made.folder))
    assert len(rows) == 20
    index = NoveltyIndex()
    for row in rows:
        task = row.prompt.split("\n\n")[0]
        assert index.nearest(task, 0.7) == (0.0, -1)
        index.add(task)
    first = rows[0].meta
    assert first["method"] == "generate.self_instruct"
    assert first["teacher"] == teacher
    assert first["round"] == 0
    assert len(first["parents"]) == 3
    known = set(first["parents"]) | {row.id for row in rows}
    later = [row for row in rows if row.meta["round"] > 0]
    assert all(set(row.meta["parents"]) <= known for row in later)
    assert any(set(row.meta["parents"]) & {r.id for r in rows} for row in later)
    labels = Counter(row.answer for row in rows if row.answer in ("good", "bad"))
    assert set(labels) == {"good", "bad"}  # output first, and not always the first label


def test_everything_dropped_is_counted(seeds: str, teacher: str, tmp_path: Path) -> None:
    made = settings(seeds, teacher, count=40).to(tmp_path / "out")
    lines = made.path("rejected.jsonl").read_text().splitlines()
    reasons = Counter(json.loads(line)["reason"] for line in lines)
    metrics = made.manifest.metrics
    assert metrics["dropped"] == dict(reasons)
    assert {"too short", "starts with punctuation", "not novel", "answer empty"} <= set(reasons)
    assert "asks for more than text" in reasons
    funnel = made.manifest.funnel
    assert funnel[0][1] == sum(reasons.values()) + 40
    assert funnel[-1] in (["kept", 40], ("kept", 40))
    assert funnel[-2][1] == 40


def test_batches_do_not_change_the_rows(seeds: str, teacher: str, tmp_path: Path) -> None:
    one = settings(seeds, teacher, batch_size=1).to(tmp_path / "one")
    many = settings(seeds, teacher, batch_size=16).to(tmp_path / "many")
    assert one.path("rows.jsonl").read_bytes() == many.path("rows.jsonl").read_bytes()
    other = settings(seeds, teacher).to(tmp_path / "other", seed=5)
    assert other.path("rows.jsonl").read_bytes() != one.path("rows.jsonl").read_bytes()


def test_a_count_out_of_reach_says_both_numbers(seeds: str, teacher: str, tmp_path: Path) -> None:
    said: list[str] = []
    run = settings(seeds, teacher, count=500, max_attempts=6)
    made = run.to(tmp_path / "out", say=said.append)
    got = made.manifest.metrics["rows_out"]
    assert 0 < got < 500
    assert made.manifest.metrics["attempts"] == 6
    sentence = f"asked for 500 rows, got {got} in 6 attempts"
    assert any(sentence in line for line in said)
    assert made.manifest.not_measured == [sentence]


def test_a_teacher_that_says_nothing_useful_is_an_error(seeds: str, tmp_path: Path) -> None:
    with serve(lambda prompt, seed: "I would rather not.") as teacher:
        with pytest.raises(DataError, match=r"no usable row in 4 attempts .*empty 4"):
            settings(seeds, teacher, max_attempts=4).to(tmp_path / "out")


def test_an_interrupted_run_asks_only_for_the_rest(seeds: str, tmp_path: Path) -> None:
    asked: Counter[tuple[str, int]] = Counter()

    def counted(prompt: str, seed: int) -> str:
        asked[prompt, seed] += 1
        return teach(prompt, seed)

    def stop(line: str) -> None:
        if line.startswith("round 2"):
            raise KeyboardInterrupt

    with serve(counted) as teacher:
        with pytest.raises(KeyboardInterrupt):
            settings(seeds, teacher).to(tmp_path / "out", say=stop)
        assert asked
        made = settings(seeds, teacher).to(tmp_path / "out")
        assert set(asked.values()) == {1}
        whole = settings(seeds, teacher).to(tmp_path / "whole")
    assert made.path("rows.jsonl").read_bytes() == whole.path("rows.jsonl").read_bytes()


@pytest.mark.skipif(
    not (SEEDLINGS / "teacher" / "config.json").is_file(), reason="no teacher seedling here"
)
def test_the_teacher_seedling_writes_and_answers(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "recipes" / "seeds.jsonl"
    made = SelfInstruct(
        seeds=str(page),
        count=12,
        examples_per_prompt=4,
        generated_per_prompt=1,
        novelty=1.0,
        temperature=1.0,
        top_p=0.95,
        max_prompt_tokens=128,
        max_answer_tokens=128,
        round_size=24,
    ).to(tmp_path / "out")
    rows = list(read(made.folder))
    assert len(rows) == 12
    assert len({row.prompt for row in rows}) == 12
    assert all(row.answer for row in rows)
