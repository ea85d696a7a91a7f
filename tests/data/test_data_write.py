"""Writing rows: the same bytes for the same rows, whole or not at all, and back again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilth.data import Example, Rejection, read, write_rejected, write_rows
from tilth.errors import ArtefactError, DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SPOKEN = TEXT.filter(lambda text: bool(text.strip()))
VALUE = st.recursive(
    TEXT | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
META = st.dictionaries(TEXT, VALUE, max_size=3)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    turns = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        turns += [{"role": "user", "content": draw(SPOKEN)}]
        turns += [{"role": "assistant", "content": draw(SPOKEN)}]
    if draw(st.booleans()):
        return Example(turns[:-1], draw(META), draw(SPOKEN), draw(SPOKEN))  # type: ignore[arg-type]
    return Example(turns, draw(META))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    import datasets

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(examples(), min_size=1, max_size=4))
def test_json_lines_come_back_the_same(tmp_path: Path, rows: list[Example]) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_rows(path, rows) == len(rows)
    assert list(read(path)) == rows


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10
)
@given(st.lists(examples(), min_size=1, max_size=4))
def test_parquet_comes_back_the_same(tmp_path: Path, rows: list[Example]) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(path, rows)
    assert list(read(path)) == rows


@pytest.mark.parametrize(
    ("form", "record"),
    [
        ("alpaca", {"instruction": "Add.", "input": "2, 2", "output": "4", "topic": "sums"}),
        ("query_response", {"query": "q", "response": "a", "system": "s"}),
        ("preference", {"id": 3, "prompt": "q", "chosen": "a", "rejected": "b"}),
        ("seed_tasks", {"instruction": "i", "instances": [{"input": "1", "output": "o"}] * 2}),
    ],
)
def test_a_foreign_file_converts_once_and_for_all(tmp_path: Path, form: str, record: dict) -> None:
    source = tmp_path / "pool.jsonl"
    source.write_text(json.dumps(record) + "\n")
    rows = read(source)
    assert rows.form == form
    for name in ("rows.jsonl", "rows.parquet"):
        write_rows(tmp_path / name, rows)
        assert list(read(tmp_path / name)) == list(rows)


def test_the_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    one = Example.pair("ä", "b", x={"q": 1, "p": 2}, a=(1, 2))
    turned = [dict(reversed(turn.items())) for turn in one.messages]
    two = Example(turned, {"a": [1, 2], "x": {"p": 2, "q": 1}})  # type: ignore[arg-type]
    for name in ("rows.jsonl", "rows.parquet"):
        write_rows(tmp_path / f"1{name}", [one])
        write_rows(tmp_path / f"2{name}", [two])
        assert (tmp_path / f"1{name}").read_bytes() == (tmp_path / f"2{name}").read_bytes()
    assert (tmp_path / "1rows.jsonl").read_text(encoding="utf-8") == (
        f'{{"id": "{one.id}", "messages": [{{"role": "user", "content": "ä"}}, '
        '{"role": "assistant", "content": "b"}], "meta": {"a": [1, 2], "x": {"p": 2, "q": 1}}}\n'
    )


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    def failing() -> Iterator[Example]:
        yield Example.pair("q", "a")
        raise KeyboardInterrupt

    write_rows(tmp_path / name, [Example.pair("old", "row")])
    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / name, failing())
    assert [row.prompt for row in read(tmp_path / name)] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, {"a": 1, 2: 3}, "\ud800"])
def test_what_json_cannot_say_is_named(tmp_path: Path, value: object) -> None:
    example = Example.pair("q", "a", value=value)
    with pytest.raises(DataError, match=example.id):
        write_rows(tmp_path / "rows.jsonl", [example])


def test_other_endings_and_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.parquet"):
        write_rows(tmp_path / "rows.csv", [])
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match="cannot be written"):
        write_rows(tmp_path / "file" / "rows.jsonl", [])


def test_rejected_rows_are_json_lines(tmp_path: Path) -> None:
    rejection = Rejection("pool.jsonl", 3, "answer", "null content", '{"question": "ä"')
    assert write_rejected(tmp_path / "rejected.jsonl", [rejection]) == 1
    row = json.loads((tmp_path / "rejected.jsonl").read_text())
    assert row == {
        "file": "pool.jsonl", "line": 3, "field": "answer", "reason": "null content",
        "row": '{"question": "ä"',
    }  # fmt: skip
    write_rejected(tmp_path / "rejected.jsonl", [])
    assert (tmp_path / "rejected.jsonl").read_bytes() == b""


def test_tables_of_other_people(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"question": ["q", None], "answer": ["a", "b"], "score": [float("nan"), 0.5]}
    pq.write_table(pa.table(columns), tmp_path / "pool.parquet")
    dataset = datasets.Dataset.from_dict(columns)
    dataset.save_to_disk(tmp_path / "saved")
    for path in (
        tmp_path / "pool.parquet",
        tmp_path / "saved",
        *(tmp_path / "saved").glob("*.arrow"),
    ):
        rows = read(path, max_rejected=0.5)
        assert [(row.prompt, row.answer) for row in rows] == [("q", "a")]
        (rejection,) = rows.rejections()
        assert (rejection.line, rejection.field) == (2, "question")
        assert json.loads(rejection.row)["score"] == 0.5
    datasets.DatasetDict(train=dataset).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match="several splits: train"):
        read(tmp_path / "splits")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "pool.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "cut.parquet")
