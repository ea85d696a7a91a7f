"""Prompts from a file: a line of text each, or a JSON object each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilth.data.example import Message
from tilth.errors import DataError

__all__ = ["read_prompts"]

_KEYS = ("prompt", "question", "instruction", "query", "text")


def read_prompts(path: str | Path) -> list[list[Message]]:
    """The conversations of a file that wait for an answer.

    ``.jsonl``: objects with ``messages`` (the turns up to the last of the user are asked), or with
    one of ``prompt``, ``question``, ``instruction``, ``query``, ``text``; an ``input`` or
    ``context`` is put below an instruction. Any other file: a prompt a line.

    Raises:
        DataError: A line cannot be used, or there is none; it is named.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(
            f"the prompts cannot be read: {problem}",
            where=str(path),
            fix="name a file with a prompt a line, or JSON Lines",
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        found.append(_object(line, where) if path.suffix == ".jsonl" else _said(line))
    if not found:
        raise DataError("there is no prompt in this file", where=str(path))
    return found


def _said(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _object(line: str, where: str) -> list[Message]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"this line is not JSON: {error}", where=where) from error
    turns = row.get("messages") if isinstance(row, dict) else None
    if isinstance(turns, list):
        last = max((i for i, m in enumerate(turns) if _is_turn(m, "user")), default=-1)
        if last >= 0 and all(_is_turn(m) for m in turns[: last + 1]):
            return [{"role": m["role"], "content": m["content"]} for m in turns[: last + 1]]
        raise DataError(
            "the messages are no turns, or none is the user's",
            where=where,
            fix='a turn is written {"role": "user", "content": "..."}',
        )
    key = next((k for k in _KEYS if isinstance(row, dict) and isinstance(row.get(k), str)), None)
    if key is None:
        raise DataError(
            "this line holds no prompt", where=where, fix=f"use messages, {', '.join(_KEYS)}"
        )
    below = str(row.get("input") or row.get("context") or "")
    return _said(f"{row[key]}\n\n{below}" if below else row[key])


def _is_turn(turn: Any, role: str = "") -> bool:
    texts = isinstance(turn, dict) and all(
        isinstance(turn.get(k), str) for k in ("role", "content")
    )
    return texts and role in ("", turn["role"])
