"""Files as records that can be read one by one, in any order, in bounded memory.

A text file (JSON Lines, CSV, plain text) is one pass over the bytes that notes where every record
stands; a record is then read by its position, so a pool larger than memory costs 18 bytes a row.
`datasets` reads JSON Lines and CSV too, but stops at the first broken line of a whole file, where
we owe the user the line's number and all the other lines; Parquet and Arrow, which have no broken
lines, go through its memory-mapped tables.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from tilth.data.forms import Reject
from tilth.errors import DataError

__all__ = ["MAX_LINE", "Records", "open_records"]

MAX_LINE = 64 * 2**20
"""Bytes of the longest record that is read into memory (our choice)."""

_EXCERPT = 300  # characters of a record that are shown
_COMPRESSED = (".xz", ".gz", ".bz2", ".zst")
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet", ".arrow")
_NESTED = {"messages", "conversations", "instances", "chosen", "rejected"}
"""Columns that hold lists of objects within one record, so not a file's list of records."""

_BOM = b"\xef\xbb\xbf"

Span = tuple[int, int, int]
"""Line number (from 1), position, length."""


class Records(Protocol):
    """Records by position."""

    def spans(self) -> Iterator[Span]:
        """Where every record stands, in order."""

    def at(self, start: int, length: int) -> Any:
        """The record there.

        Raises:
            Reject: It is broken.
        """

    def excerpt(self, start: int, length: int) -> str:
        """How the record begins, as it stands in the file."""


def open_records(path: Path) -> Records:
    """The records of a data file, or of a folder that ``datasets.save_to_disk`` wrote.

    Raises:
        DataError: An unknown kind of file, a broken archive, or not UTF-8 at all.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSED else ""
    kind = suffixes[-1] if suffixes else ""
    if path.is_dir() or kind in (".parquet", ".arrow"):
        return _Table(path, kind)
    if kind not in _SUFFIXES:
        raise DataError(
            f"unknown kind of data file {path.name!r}",
            where=str(path),
            fix=f"give it one of the endings {' '.join(_SUFFIXES)}, with "
            f"{' '.join(_COMPRESSED)} after it where it is compressed",
        )
    file = _unpacked(path, packed) if packed else _opened(path)
    start = file.read(4)
    file.seek(0)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("the file is UTF-16", where=str(path), fix="save it as UTF-8")
    if kind == ".json":
        file = _json_as_lines(file, path)
    if kind in (".csv", ".tsv"):
        return _Csv(file, path)
    return _TextBlocks(file) if kind in (".txt", ".md") else _JsonLines(file)


class _Bytes:
    """Shared by the text files: bytes by position, safe in threads and after a fork."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, position and first ``MAX_LINE`` bytes of every line."""
        self.file.seek(0)
        start = number = 0
        if self.file.read(3) == _BOM:
            start = 3
        self.file.seek(start)
        while line := self.file.readline(MAX_LINE):
            number += 1
            yield number, start, line
            start += len(line)
            while len(line) == MAX_LINE and not line.endswith(b"\n"):
                line = self.file.readline(MAX_LINE)
                start += len(line)

    def text(self, start: int, length: int) -> str:
        if length >= MAX_LINE:
            raise Reject(f"longer than {MAX_LINE // 2**20} MiB")
        try:
            return os.pread(self.file.fileno(), length, start).decode()
        except UnicodeDecodeError as error:
            raise Reject("invalid UTF-8") from error

    def excerpt(self, start: int, length: int) -> str:
        raw = os.pread(self.file.fileno(), min(length, 4 * _EXCERPT), start)
        return raw.decode(errors="replace").rstrip()[:_EXCERPT]


class _JsonLines(_Bytes):
    def spans(self) -> Iterator[Span]:
        for number, start, line in self.lines():
            if not line.isspace():
                yield number, start, len(line)

    def at(self, start: int, length: int) -> Any:
        text = self.text(start, length)
        try:
            record = json.loads(text, parse_constant=_finite, parse_float=_finite)
            if "\\u" in text:  # an escape can spell half a character, which no file can hold
                json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise Reject("half a character (a lone surrogate)") from error
        except (ValueError, RecursionError) as error:
            raise Reject("invalid JSON") from error
        return record


class _Csv(_Bytes):
    """Comma, semicolon or tab, whichever the header has most of; the first record is the header."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        csv.field_size_limit(MAX_LINE)
        self.path = path
        self.delimiter = ","
        self.columns: list[str] = []
        first = next((line for _, _, line in self.lines() if not line.isspace()), b"")
        self.delimiter = max(",;\t", key=first.decode(errors="replace").count)
        try:
            for _, start, length in self.every_span():
                self.columns = self.fields(start, length)
                break
        except Reject as error:
            raise DataError(f"the header has {error.reason}", where=f"{path}:1") from error
        if len(set(self.columns)) < len(self.columns):
            raise DataError("two columns have the same name", where=f"{path}:1")

    def fields(self, start: int, length: int) -> list[str]:
        text = io.StringIO(self.text(start, length), newline="")
        try:
            return next(csv.reader(text, delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            raise Reject("broken quotes") from error

    def every_span(self) -> Iterator[Span]:
        """One span per record, of one line or more: a quoted field may hold line ends."""
        taken: list[tuple[int, int, int]] = []

        def feed() -> Iterator[str]:
            for number, start, line in self.lines():
                taken.append((number, start, start + len(line)))
                yield line.decode(errors="replace")

        reader = csv.reader(feed(), delimiter=self.delimiter, strict=True)
        while True:
            taken.clear()
            try:
                blank = not next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                blank = False  # `at` meets the same quotes again and says so
                if len(taken) > 1:  # the lines between may be rows that a stray quote swallowed
                    raise DataError(
                        f"a quote is opened in line {taken[0][0]} and not closed as it should be",
                        where=f"{self.path}:{taken[0][0]} to {taken[-1][0]}",
                        fix='close it, or write a quote inside a field as ""',
                    ) from error
            if not blank:
                yield taken[0][0], taken[0][1], taken[-1][2] - taken[0][1]

    def spans(self) -> Iterator[Span]:
        return itertools.islice(self.every_span(), 1, None)

    def at(self, start: int, length: int) -> Any:
        fields = self.fields(start, length)
        if len(fields) != len(self.columns):
            raise Reject(f"{len(fields)} fields where the header has {len(self.columns)}")
        return dict(zip(self.columns, fields, strict=True))


class _TextBlocks(_Bytes):
    """Plain text: blank lines separate the documents."""

    def spans(self) -> Iterator[Span]:
        begun, end = (0, 0), 0
        for number, start, line in self.lines():
            if line.isspace():
                if end:
                    yield *begun, end - begun[1]
                end = 0
                continue
            if not end:
                begun = (number, start)
            end = start + len(line)
        if end:
            yield *begun, end - begun[1]

    def at(self, start: int, length: int) -> Any:
        return {"text": self.text(start, length).replace("\r\n", "\n").strip("\n")}


class _Table:
    """Parquet and Arrow through the memory-mapped tables of `datasets`."""

    def __init__(self, path: Path, kind: str) -> None:
        import datasets

        shown = not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            if path.is_dir():
                table = datasets.load_from_disk(str(path))
            elif kind == ".arrow":
                table = datasets.Dataset.from_file(str(path))
            else:
                table = datasets.Dataset.from_parquet(str(path))
        except Exception as error:  # pyarrow and datasets raise a dozen kinds for a broken file
            raise DataError(
                f"the table cannot be read: {error}",
                where=str(path),
                fix="write it again; a half-copied Parquet file lacks its last bytes",
            ) from error
        finally:
            if shown:
                datasets.enable_progress_bars()
        if not isinstance(table, datasets.Dataset):
            raise DataError(
                f"the folder holds several splits: {', '.join(table)}",
                where=str(path),
                fix="name the folder of one split",
            )
        self.table = table

    def spans(self) -> Iterator[Span]:
        for row in range(len(self.table)):
            yield row + 1, row, 0

    def at(self, start: int, length: int) -> Any:
        return _plain(self.table[start])

    def excerpt(self, start: int, length: int) -> str:
        return json.dumps(self.at(start, length), ensure_ascii=False)[:_EXCERPT]


def _plain(value: Any) -> Any:
    """`value` in JSON's types: a date becomes its text, a not-a-number null."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not JSON")
    return value


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"the file cannot be opened: {error.strerror}",
            where=str(path),
            fix="check that it is a file that you may read",
        ) from error


def _unpacked(path: Path, packed: str) -> IO[bytes]:
    """The decompressed bytes, so that any record can be reached."""
    spool = _spool()
    try:
        with _decompressor(path, packed) as stream:
            shutil.copyfileobj(stream, spool, 2**20)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        spool.close()
        raise DataError(
            f"the file cannot be decompressed: {error}",
            where=str(path),
            fix=f"fetch it again; if it is whole, make room in {tempfile.gettempdir()}",
        ) from error
    spool.seek(0)
    return spool


def _spool() -> IO[bytes]:
    """A nameless temporary file; it goes when the rows do, and a kill leaves nothing behind."""
    return tempfile.TemporaryFile()


def _decompressor(path: Path, packed: str) -> io.BufferedIOBase:
    if packed == ".zst":
        import pyarrow

        return pyarrow.input_stream(str(path), compression="zstd")
    if packed == ".xz":
        return lzma.open(path, "rb")
    return gzip.open(path, "rb") if packed == ".gz" else bz2.open(path, "rb")


def _json_as_lines(file: IO[bytes], path: Path) -> IO[bytes]:
    """A JSON file as JSON Lines; many files called .json are that already.

    A list of objects, or an object that holds one, is read whole and spooled.
    """
    first = file.readline(MAX_LINE).removeprefix(_BOM)
    more = file.readline(MAX_LINE)
    file.seek(0)
    if more and not more.isspace() and _is_object(first):
        return file
    try:
        value = json.loads(file.read().removeprefix(_BOM))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"the file is not JSON: {error}",
            where=str(path),
            fix="a .json file holds a list of objects; a .jsonl file one object per line",
        ) from error
    if isinstance(value, dict):
        lists = [] if _NESTED & set(value) else [x for x in value.values() if _is_rows(x)]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list):
        raise DataError("the file holds no list of objects", where=str(path))
    spool = _spool()
    for record in value:
        spool.write(json.dumps(record).encode() + b"\n")
    spool.seek(0)
    return spool


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
