"""Reading: any file that people have becomes :class:`Rows`; a bad row is counted and kept aside.

>>> from tilth.data import read                                     # doctest: +SKIP
>>> rows = read("gsm8k_test.jsonl.xz")                              # doctest: +SKIP
>>> len(rows), rows[0].answer[-5:]                                  # doctest: +SKIP
(1319, '#### 18')
"""

from __future__ import annotations

import difflib
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from tilth.artefacts import Artefact
from tilth.data._records import Records, open_records
from tilth.data.example import Example
from tilth.data.forms import MAX_CHARS, Reject, Require, convert, form_named, recognise
from tilth.data.write import Rejection, write_rejected
from tilth.errors import DataError

__all__ = ["Rows", "read"]

_TOLD = 250_000  # rows between two lines about progress
_LOOK = 100  # records from which the columns are taken: an optional column may be missing in some
_PLACE = struct.Struct("<IqiH")
_PLACES = np.dtype([("number", "<u4"), ("start", "<i8"), ("length", "<i4"), ("part", "<u2")])


@dataclass(frozen=True)
class _Source:
    """A file and how its records become examples."""

    path: Path
    records: Records
    form: str
    require: Require
    max_chars: int

    def examples(self, number: int, start: int, length: int) -> list[Example]:
        """The examples of one record; raises :class:`Reject`."""
        record = self.records.at(start, length)
        examples = convert(record, self.form, require=self.require, max_chars=self.max_chars)
        if "meta" not in record:  # rows of our own carry their provenance already
            for example in examples:
                example.meta.setdefault("read_from", f"{self.path.name}:{number}")
        return examples

    def rejection(self, number: int, start: int, length: int, error: Reject) -> Rejection:
        """The row for ``rejected.jsonl``; without folders: a moved run keeps its bytes."""
        row = self.records.excerpt(start, length)
        return Rejection(self.path.name, number, error.field, error.reason, row)


class Rows(Sequence[Example]):
    """The examples of a file: a sequence that keeps only positions in memory (18 bytes a row).

    Attributes:
        path: The file.
        form: The form in which it was read, e.g. ``alpaca``.
        records: How many records the file holds, good and bad.
        rejected: How many records could not be used, by reason.
    """

    def __init__(
        self, source: _Source, good: np.ndarray, bad: np.ndarray, rejected: Counter[str], total: int
    ) -> None:
        self._source = source
        self._good = good
        self._bad = bad
        self.path = source.path
        self.form = source.form
        self.records = total
        self.rejected = dict(rejected.most_common())

    def __len__(self) -> int:
        return len(self._good)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Example | Rows:
        if isinstance(index, slice):
            return self._view(self._good[index])
        number, start, length, part = self._good[index].tolist()
        try:
            return self._source.examples(number, start, length)[part]
        except Reject as error:
            raise DataError(
                f"a row that was good is now broken: {error.reason}",
                where=f"{self.path}:{number}",
                fix="the file changed while it was in use; start again",
            ) from error

    def __iter__(self) -> Iterator[Example]:
        for index in range(len(self)):
            yield self[index]

    def select(self, indices: Iterable[int]) -> Rows:
        """The rows at `indices`, in that order."""
        return self._view(self._good[np.fromiter(indices, dtype=np.int64)])

    def rejections(self) -> Iterator[Rejection]:
        """Every record that could not be used, with its line, field and reason."""
        for number, start, length, _ in self._bad.tolist():
            try:
                self._source.examples(number, start, length)
            except Reject as error:
                yield self._source.rejection(number, start, length, error)

    def summary(self) -> str:
        """One line for the screen: what was read and what was set aside, by reason."""
        line = f"{self.path.name}: {len(self):,} examples from {self.records:,} rows ({self.form})"
        if not self.rejected:
            return line
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.items())
        return f"{line}; {sum(self.rejected.values()):,} rejected: {reasons}"

    def _view(self, good: np.ndarray) -> Rows:
        return Rows(self._source, good, self._bad, Counter(self.rejected), self.records)


def read(
    ref: str | Path,
    *,
    form: str = "auto",
    require: Require = "answer",
    max_rejected: float = 0.1,
    max_chars: int = MAX_CHARS,
    rejected_to: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Rows:
    """The examples of a file or of an artefact.

    JSON Lines, CSV (read as text, so that ``007`` stays) and plain text may be packed as ``.xz``,
    ``.gz``, ``.bz2`` or ``.zst``. A ``.json`` list is read whole; everything else may be larger
    than memory. Plain text (``.txt``, ``.md``) is one prompt or document per block between blank
    lines.

    Args:
        ref: A data file; the folder of an artefact (its ``rows.jsonl``, digests checked); or a
            folder that ``datasets`` saved.
        form: One of :data:`tilth.data.FORMS`, or ``"auto"``: by the columns.
        require: ``"answer"``: every row needs a user turn and an answer; ``"prompt"``: a user turn;
            ``"any"``: text.
        max_rejected: Greatest share of rows that may be unusable (our choice: a tenth); beyond it
            something is wrong with the file and not with a row.
        max_chars: Most characters of one example.
        rejected_to: Where to list the unusable rows (``rejected.jsonl``); written before an error
            about them is raised.
        say: Is given progress on a large file, and the one-line summary.

    Returns:
        The rows, by position.

    Raises:
        DataError: No such file; an unknown kind or form; an empty file; too many unusable rows,
            or no usable one.
        ArtefactError: The artefact is damaged.
    """
    path = _located(Path(ref))
    records = open_records(path)
    if form == "auto":
        form = recognise(_columns(records, path), require, str(path))
    source = _Source(path, records, form_named(form), require, max_chars)
    good, bad = bytearray(), bytearray()
    reasons: Counter[str] = Counter()
    firsts: dict[str, list[str]] = {}
    total = 0
    for number, start, length in records.spans():
        total += 1
        if say is not None and total % _TOLD == 0:
            say(f"{path.name}: {total:,} rows read, {sum(reasons.values()):,} rejected")
        try:
            for part in range(len(source.examples(number, start, length))):
                good += _PLACE.pack(number, start, length, part)
        except Reject as error:
            bad += _PLACE.pack(number, start, length, 0)
            reasons[error.reason] += 1
            lines = firsts.setdefault(error.reason, [])
            if len(lines) < 3:
                lines.append(f"{number} ({error.field})" if error.field else str(number))
    places = np.frombuffer(good, dtype=_PLACES), np.frombuffer(bad, dtype=_PLACES)
    rows = Rows(source, places[0], places[1], reasons, total)
    if rejected_to is not None:
        write_rejected(rejected_to, rows.rejections())
    if total == 0:
        raise DataError("the file is empty", where=str(path), fix="give a file with rows")
    share = sum(reasons.values()) / total
    if len(rows) == 0 or share > max_rejected:
        _stop(rows, firsts, share, max_rejected, rejected_to)
    if say is not None:
        say(rows.summary())
    return rows


def _stop(
    rows: Rows,
    firsts: dict[str, list[str]],
    share: float,
    max_rejected: float,
    rejected_to: Path | None,
) -> None:
    problem = f"{sum(rows.rejected.values()):,} of {rows.records:,} rows cannot be used"
    if len(rows) == 0:
        problem = f"none of the {rows.records:,} rows can be used"
    shown = [
        f"{count:,} x {reason}: line {', '.join(firsts[reason])}"
        + (", ..." if count > len(firsts[reason]) else "")
        for reason, count in list(rows.rejected.items())[:8]
    ]
    listed = f"; all are listed in {rejected_to}" if rejected_to else ""
    raise DataError(
        f"{problem} ({share:.0%}, the limit is {max_rejected:.0%}), read as {rows.form!r}",
        where=f"{rows.path}\n    " + "\n    ".join(shown),
        fix=f"repair these rows, name the form, or raise max_rejected{listed}",
    )


def _columns(records: Records, path: Path) -> set[str]:
    """The columns of the first records."""
    columns: set[str] = set()
    seen = 0
    for _, start, length in records.spans():
        try:
            record: Any = records.at(start, length)
        except Reject:
            continue
        if isinstance(record, dict):
            columns.update(record)
            seen += 1
        if seen == _LOOK:
            break
    if not columns and next(records.spans(), None) is None:
        raise DataError("the file is empty", where=str(path), fix="give a file with rows")
    return columns


def _located(path: Path) -> Path:
    """The file to read: `path` itself, or the rows of the artefact in it."""
    if not path.exists():
        near = []
        if path.parent.is_dir():
            names = [entry.name for entry in path.parent.iterdir()]
            near = difflib.get_close_matches(path.name, names, n=1)
        raise DataError(
            "there is no such data file or artefact",
            where=str(path),
            fix=f"did you mean {path.parent / near[0]}?" if near else "check the path",
        )
    saved = any((path / f"dataset_{name}.json").exists() for name in ("info", "dict"))
    if not path.is_dir() or saved:
        return path
    if not (path / "manifest.json").exists():
        inside = sorted(entry.name for entry in path.iterdir())[:5]
        raise DataError(
            "the folder is no finished artefact: it has no manifest.json",
            where=str(path),
            fix=f"name a file in it ({', '.join(inside)})" if inside else "the folder is empty",
        )
    return Artefact.open(path).path("rows.jsonl")
