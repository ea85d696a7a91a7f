"""Public question sets for refusal, read from the user's own copy of their files.

SelfAware (Yin et al. 2023, arXiv:2305.18153; data CC BY-SA 4.0) has answerable and unanswerable
questions. ParaRel (Elazar et al. 2021, arXiv:2102.01017) has facts as subject, object and relation
with paraphrase patterns; a question is made of a pattern whose object stands at its end. Nothing is
downloaded, and tilth ships none of it.
"""

from __future__ import annotations

import json
import lzma
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from tilth.data.example import Example
from tilth.errors import DataError
from tilth.seeds import derive

__all__ = ["pararel_questions", "self_aware_questions"]

_TAIL = re.compile(r"\s*\.?\s*$")


def self_aware_questions(path: Path | str) -> list[Example]:
    """The questions of ``SelfAware.json`` (plain or ``.xz``), unanswerable ones marked.

    Returns:
        One row per question; ``meta`` has ``answers`` where there are any, ``answerable`` and
        ``source``.

    Raises:
        DataError: The file is missing or is not SelfAware's.
    """
    body = _json(Path(path))
    listed = body.get("example") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        raise DataError("this is not SelfAware's file: it has no list 'example'", where=str(path))
    rows = []
    for number, one in enumerate(listed):
        try:
            answerable, answers = bool(one["answerable"]), one["answer"] or []
            question = str(one["question"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"a question of SelfAware lacks {error}", where=f"{path}: example[{number}]"
            ) from error
        meta = {"task": "selfaware", "source": one.get("source", ""), "answerable": answerable}
        if answers:
            meta["answers"] = [str(answer) for answer in answers]
        rows.append(Example([{"role": "user", "content": question}], meta))
    return rows


def pararel_questions(tuples: Path | str, patterns: Path | str) -> list[Example]:
    """ParaRel as questions: the first pattern of each relation that ends in its object.

    ``[X] was born in [Y].`` becomes ``Complete with one word: Ada Lovelace was born in``. A
    relation without such a pattern is left out. Where a subject has several objects in a relation
    each counts as right.

    Args:
        tuples: JSON Lines with ``sub_label``, ``obj_label``, ``relation`` (plain or ``.xz``).
        patterns: JSON Lines with ``pattern`` and ``relation`` (plain or ``.xz``).

    Returns:
        One row per subject and relation, in a fixed order that mixes the relations; ``meta`` has
        ``relation`` and ``answers``.

    Raises:
        DataError: A file is missing, or a line lacks a field.
    """
    stems: dict[str, str] = {}
    for row in _lines(Path(patterns), ("pattern", "relation")):
        head, object_mark, rest = row["pattern"].partition("[Y]")
        ends = object_mark and not _TAIL.sub("", rest) and "[X]" in head
        if ends and row["relation"] not in stems:
            stems[row["relation"]] = head.strip()
    golds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in _lines(Path(tuples), ("sub_label", "obj_label", "relation")):
        known = golds[row["relation"], row["sub_label"]]
        if row["obj_label"] not in known:
            known.append(row["obj_label"])
    rows = [
        Example.pair(
            f"Complete with one word: {stems[relation].replace('[X]', subject)}",
            answers[0],
            task="pararel",
            relation=relation,
            answers=answers,
        )
        for (relation, subject), answers in golds.items()
        if relation in stems
    ]
    return sorted(rows, key=lambda row: derive(0, "pararel", row.id))


def _open(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    try:
        return (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode("utf-8")
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"the file is damaged: {error}", where=str(path)) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_open(path))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=str(path)) from error


def _lines(path: Path, fields: tuple[str, ...]) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(_open(path).splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append({name: str(row[name]) for name in fields})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"this line is not of ParaRel: {error!r}",
                where=f"{path}:{number}",
                fix=f"a line has {', '.join(fields)}",
            ) from error
    return rows
