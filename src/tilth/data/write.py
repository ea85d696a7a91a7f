"""Writing rows: whole or not at all, and the same bytes for the same rows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tilth._disk import make_folder, whole_file
from tilth.data.example import Example
from tilth.errors import DataError

__all__ = ["Rejection", "line_of", "write_rejected", "write_rows"]

_ROW_GROUP = 1000  # rows of Parquet that are held in memory at a time


@dataclass(frozen=True)
class Rejection:
    """A row that could not be used: one line of ``rejected.jsonl``.

    Attributes:
        file: The file in which it stands.
        line: Its line, or its row in a table, from 1.
        field: The field at fault, or ``""`` for the whole row.
        reason: Why, in a few words.
        row: The beginning of the row.
    """

    file: str
    line: int
    field: str
    reason: str
    row: str


def line_of(example: Example) -> str:
    """The row of `example` as one line of JSON: id, messages, meta in key order, the pair.

    Raises:
        DataError: ``meta`` holds what JSON cannot say.
    """
    row = example.as_dict()
    row["messages"] = [{"role": m["role"], "content": m["content"]} for m in example.messages]
    try:
        row["meta"] = _in_key_order(example.meta)
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        line.encode()
        return line
    except (TypeError, ValueError) as error:
        raise DataError(
            f"a row cannot be written as JSON: {error}",
            where=f"row {example.id}",
            fix="keep plain numbers, texts, lists and dictionaries in meta",
        ) from error


def write_rows(path: Path | str, examples: Iterable[Example]) -> int:
    """Writes `examples` to a ``.jsonl`` or ``.parquet`` file, one at a time.

    The file appears under its name only when it is whole and on disk.

    Returns:
        How many rows were written.

    Raises:
        DataError: A row cannot be written, or the file's ending is another one.
        ArtefactError: The disk is full or read-only.
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".parquet"):
        raise DataError(
            f"rows cannot be written to {path.name!r}",
            where=str(path),
            fix="name a .jsonl or a .parquet file",
        )
    lines = (line_of(example) for example in examples)
    with _whole(path) as file:
        return _write_parquet(file, lines) if path.suffix == ".parquet" else _write(file, lines)


def write_rejected(path: Path | str, rejections: Iterable[Rejection]) -> int:
    """Writes `rejections` as JSON Lines; an empty file says that nothing was rejected.

    Returns:
        How many were written.

    Raises:
        ArtefactError: The disk is full or read-only.
    """
    with _whole(Path(path)) as file:
        return _write(file, (json.dumps(asdict(row), ensure_ascii=False) for row in rejections))


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A whole file or none, in a folder that is made where it does not exist."""
    make_folder(path.parent)
    with whole_file(path) as file:
        yield file


def _write(file: IO[bytes], lines: Iterable[str]) -> int:
    count = 0
    for line in lines:
        file.write(line.encode() + b"\n")
        count += 1
    return count


def _write_parquet(file: IO[bytes], lines: Iterable[str]) -> int:
    """The same rows as a table; ``meta`` is one JSON text, as its keys differ by row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("messages", pa.list_(turn)),
            ("meta", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
        ]
    )
    count = 0
    with pq.ParquetWriter(file, schema) as writer:
        lines = iter(lines)
        while rows := [json.loads(line) for line in itertools.islice(lines, _ROW_GROUP)]:
            for row in rows:
                row["meta"] = json.dumps(row["meta"], ensure_ascii=False)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _in_key_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_key_order(value[key]) for key in sorted(value)}
    return [_in_key_order(item) for item in value] if isinstance(value, list | tuple) else value
