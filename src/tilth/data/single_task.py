"""The narrow data sets of single-task tuning, each as conversations.

| task | question | answer |
|---|---|---|
| ``mbpp`` | the description | the code |
| ``gsm8k`` | the question | the derivation, which ends in ``#### n`` |
| ``poems`` | ``Write a poem called T`` | the poem |
| ``recipes`` | ``Recipe for T`` | ``- `` ingredients, a blank line, the instructions |
| ``chess`` | two Elo lines | the moves of the game |
| ``rows`` | as it stands | as it stands: any file that tilth reads, e.g. one skill of the almanac |

(Hewitt et al. 2024, arXiv:2409.14254, section 4.3 and its scripts.) The data is the user's own:
apart from GSM8K (MIT) and MBPP (CC BY 4.0) its licences are not clear.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tilth.data._records import Records, open_records
from tilth.data.example import Example
from tilth.data.forms import Reject
from tilth.data.read import read
from tilth.data.write import Rejection
from tilth.errors import DataError

__all__ = ["COUNTS", "Counting", "Task", "TaskRows", "single_task"]

Task = Literal["rows", "mbpp", "gsm8k", "poems", "recipes", "chess"]
Counting = Literal["scanned", "kept"]

COUNTS: dict[Task, int | None] = {
    "rows": None,
    "mbpp": None,
    "gsm8k": 1000,
    "poems": 1000,
    "recipes": 1000,
    "chess": 1000,
}
"""How many records the paper uses from the top; None: all (374 of MBPP)."""

# Per task the columns by the names that its usual copies give them; the first that is there counts.
_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "mbpp": {"text": ("text", "prompt"), "code": ("code",)},
    "gsm8k": {"question": ("question",), "answer": ("answer",)},
    "poems": {"title": ("poem name", "title"), "poem": ("content", "poem", "text")},
    "recipes": {
        "title": ("title", "name"),
        "ingredients": ("ingredients",),
        "instructions": ("instructions", "directions", "steps"),
    },
    "chess": {
        "white": ("WhiteElo", "white_elo"),
        "black": ("BlackElo", "black_elo"),
        "moves": ("transcript", "moves", "pgn"),
    },
}
_BULLET = re.compile(r"^[-*\u2022\s]+")


@dataclass
class TaskRows:
    """What became of a data set.

    Attributes:
        rows: The conversations.
        scanned: Records that were looked at.
        skipped: Records that gave no row, by reason.
        rejections: One line for each of them.
    """

    rows: list[Example] = field(default_factory=list)
    scanned: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    rejections: list[Rejection] = field(default_factory=list)


def single_task(
    ref: str | Path,
    task: Task = "rows",
    *,
    count: int | None = None,
    counting: Counting = "scanned",
) -> TaskRows:
    """The first records of a data set as conversations of one task.

    Args:
        ref: The data file.
        task: Which table above applies.
        count: Records from the top; by default the paper's number of the task.
        counting: ``scanned`` counts the records looked at, as the official scripts do (of the first
            1,000 poems, 571 have a title); ``kept`` goes on until so many rows are there.

    Raises:
        DataError: The file lacks a column; it names those looked for. Or no record gives a row.
    """
    if task not in get_args(Task):
        raise DataError(f"unknown task {task!r}", "task", f"choose one of {', '.join(COUNTS)}")
    limit = count if count is not None else COUNTS[task]
    if task == "rows":
        return _rows(ref, limit)
    path = Path(ref) / "rows.jsonl" if Path(ref).is_dir() else Path(ref)
    if not path.is_file():
        raise DataError("there is no such data file", where=str(path), fix="check the path")
    found = TaskRows()
    records = open_records(path)
    names = _columns(records, task, path)
    for number, start, length in records.spans():
        if limit is not None and limit <= (
            found.scanned if counting == "scanned" else len(found.rows)
        ):
            break
        found.scanned += 1
        try:
            record = records.at(start, length)
            prompt, answer = _MAKERS[task](_picked(record, names))
        except Reject as error:
            found.skipped[error.reason] += 1
            shown = records.excerpt(start, length)
            found.rejections.append(Rejection(path.name, number, error.field, error.reason, shown))
            continue
        place = f"{path.name}:{number}"
        found.rows.append(Example.pair(prompt, answer, method="single_task", task=task, at=place))
    if not found.rows:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in found.skipped.items())
        raise DataError(
            f"no record gives a row of the task {task!r}: {reasons or 'the file is empty'}",
            where=str(path),
        )
    return found


def _rows(ref: str | Path, limit: int | None) -> TaskRows:
    rows = read(ref)
    kept = [rows[i] for i in range(min(len(rows), len(rows) if limit is None else limit))]
    rejections = list(rows.rejections())
    return TaskRows(kept, rows.records, Counter(rows.rejected), rejections)


def _columns(records: Records, task: str, path: Path) -> dict[str, str]:
    """Part -> the column of this file that holds it."""
    present: set[str] = set()
    for seen, (_, start, length) in enumerate(records.spans()):
        if seen == 100:
            break
        try:
            record = records.at(start, length)
        except Reject:
            continue
        if isinstance(record, Mapping):
            present.update(record)
    if not present:
        raise DataError("the file is empty", where=str(path), fix="give a file with records")
    names = {}
    for part, known in _COLUMNS[task].items():
        column = next((name for name in known if name in present), None)
        if column is None:
            raise DataError(
                f"the task {task!r} needs a column {' or '.join(map(repr, known))}; "
                f"there are {', '.join(sorted(present))}",
                where=str(path),
                fix="rename the column, or use task: rows on conversations",
            )
        names[part] = column
    return names


def _picked(record: Any, names: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise Reject("not an object")
    for part, column in names.items():
        value = record.get(column)
        if value is None or (isinstance(value, str | list) and not value):
            raise Reject(f"no {part}", column)
        if isinstance(value, str) and not value.strip():
            raise Reject(f"no {part}", column)
    return {part: record[column] for part, column in names.items()}


def _mbpp(parts: dict[str, Any]) -> tuple[str, str]:
    return str(parts["text"]).strip(), str(parts["code"]).replace("\r\n", "\n").strip()


def _gsm8k(parts: dict[str, Any]) -> tuple[str, str]:
    answer = str(parts["answer"]).strip()
    if "####" not in answer:
        raise Reject("no #### line", "answer")
    return str(parts["question"]).strip(), answer


def _poem(parts: dict[str, Any]) -> tuple[str, str]:
    return f"Write a poem called {str(parts['title']).strip()}", str(parts["poem"]).strip()


def _recipe(parts: dict[str, Any]) -> tuple[str, str]:
    ingredients = "\n".join(f"- {line}" for line in _lines(parts["ingredients"]))
    instructions = "\n".join(_lines(parts["instructions"]))
    return f"Recipe for {str(parts['title']).strip()}", f"{ingredients}\n\n{instructions}"


def _lines(value: Any) -> list[str]:
    given = value if isinstance(value, list) else str(value).splitlines()
    return [line for item in given if (line := _BULLET.sub("", str(item)).strip())]


def _chess(parts: dict[str, Any]) -> tuple[str, str]:
    lines = f'[WhiteElo "{parts["white"]}"]\n[BlackElo "{parts["black"]}"]'
    return lines, str(parts["moves"]).strip()


_MAKERS: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "mbpp": _mbpp,
    "gsm8k": _gsm8k,
    "poems": _poem,
    "recipes": _recipe,
    "chess": _chess,
}
