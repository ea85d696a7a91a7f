"""Tag counts and growing tag sets, by hand; tags from meta and from a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_teacher import serve

from tilth.data import Example, write_rows
from tilth.errors import DataError
from tilth.select.instag import InsTag, growing, read_tags


def quiet(line: str) -> None:
    """Says nothing."""


def ranked(folder: Path) -> list[int]:
    told = [json.loads(x) for x in (folder / "selection.jsonl").read_text().splitlines()]
    return [x["row"] for x in sorted(told, key=lambda x: x["rank"] or 99) if x["kept"]]


TAGS = [["sum"], ["sum", "story"], ["Sum", "story ", "steps"], ["rhyme"], ["sum"], ["rhyme", "sum"]]


def pool(path: Path, tags: list = TAGS) -> str:
    write_rows(path, [Example.pair(f"Q{n}", "A", tags=t) for n, t in enumerate(tags)])
    return str(path)


def test_most_tags_first_and_ties_stable(tmp_path: Path) -> None:
    made = InsTag(pool=pool(tmp_path / "p.jsonl"), count=6, grow=False).to(
        tmp_path / "out", say=quiet
    )
    assert ranked(made.folder) == [2, 1, 5, 0, 3, 4]
    assert made.manifest.metrics["tags"] == 4


def test_a_row_must_bring_a_new_tag(tmp_path: Path) -> None:
    made = InsTag(pool=pool(tmp_path / "p.jsonl"), count=6).to(tmp_path / "out", say=quiet)
    # round 1: 2 brings all of its tags, 5 brings rhyme; round 2: 1, 3; round 3: 0; round 4: 4
    assert ranked(made.folder) == [2, 5, 1, 3, 0, 4]
    assert made.manifest.metrics["rounds"] == 4


@given(st.lists(st.frozensets(st.sampled_from("abcde")), max_size=12), st.integers(0, 12))
def test_rounds_are_those_of_the_plain_definition(tags: list[frozenset[str]], count: int) -> None:
    order = np.arange(len(tags))[::-1]
    waiting, expected = [r for r in order.tolist() if tags[r]], []
    while waiting:
        known: frozenset[str] = frozenset()
        for row in list(waiting):
            if not tags[row] <= known:
                known |= tags[row]
                expected.append(row)
                waiting.remove(row)
    expected += [r for r in order.tolist() if not tags[r]]
    assert growing(order, tags, count)[0].tolist() == expected[:count]


def test_diversity_alone_draws_the_order(tmp_path: Path) -> None:
    method = InsTag(pool=pool(tmp_path / "p.jsonl"), count=2, order="random")
    drawn = {
        tuple(ranked(method.to(tmp_path / str(n), seed=n, say=quiet).folder)) for n in range(8)
    }
    assert len(drawn) > 2
    assert method.to(tmp_path / "0", seed=0, say=quiet).cached


def test_rare_tags_are_left_out(tmp_path: Path) -> None:
    made = InsTag(pool=pool(tmp_path / "p.jsonl"), count=6, min_rows=2, grow=False).to(
        tmp_path / "out", say=quiet
    )
    assert ranked(made.folder) == [1, 2, 5, 0, 3, 4]  # "steps" has one row only
    assert made.manifest.metrics["tags"] == 3


def test_a_model_tags(tmp_path: Path) -> None:
    def tagger(prompt: str, seed: int) -> str:
        number = int(prompt.split("#Instruction#: Q")[1].split(maxsplit=1)[0])
        return "Tags: " + ", ".join(["sum", "story", "steps"][:number])

    with serve(tagger) as model:
        made = InsTag(pool=pool(tmp_path / "p.jsonl", [[]] * 3), count=2, model=model, grow=False)
        with pytest.raises(DataError, match="1 of 3 rows have no tags"):
            made.to(tmp_path / "out", say=quiet)
    with serve(lambda prompt, seed: tagger(prompt.replace("Q0", "Q3"), seed)) as model:
        made = InsTag(pool=pool(tmp_path / "q.jsonl", [[]] * 3), count=2, model=model, grow=False)
        assert ranked(made.to(tmp_path / "two", say=quiet).folder) == [0, 2]


def test_a_row_without_tags_is_named(tmp_path: Path) -> None:
    for bad in (None, [], [3], ""):
        data = pool(tmp_path / "p.jsonl", [["sum"], bad])
        with pytest.raises(DataError, match="row 1"):
            InsTag(pool=data).to(tmp_path / "out", say=quiet)


def test_answers_are_read_as_tags() -> None:
    assert read_tags('Tags: "Word problem", *steps*, steps\nshort answer.') == [
        "word problem",
        "steps",
        "short answer",
    ]
    assert read_tags(" ... ") == []
