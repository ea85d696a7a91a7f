"""The forms in which people keep examples, and how each becomes an :class:`Example`.

A form is recognised once per file, from its columns. A record that does not fit raises
:class:`Reject`, which says which field is wrong and why; the reader counts it and goes on.

What a form does not use is kept: other columns go into ``meta``, a foreign ``id`` into
``meta["source_id"]`` (the example's own id is always the hash of its content).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection
from typing import Any, Literal, cast

from tilth.data.example import Example, Message, Role
from tilth.errors import DataError

__all__ = [
    "BLANKED",
    "FORMS",
    "MAX_CHARS",
    "Reject",
    "Require",
    "convert",
    "form_named",
    "recognise",
]

Require = Literal["answer", "prompt", "any"]
"""What every example must have: an answer (and a prompt), a prompt, or just some text."""

BLANKED = "blank_user_turns"
"""The key of ``meta`` by which a row says that its user turns are empty on purpose."""

MAX_CHARS = 1_000_000
"""Characters of one example, all turns together (our choice: beyond any context tilth tunes)."""

Record = dict[str, Any]

_CHAT_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_SHAREGPT_ROLES: dict[str, Role] = {
    **_CHAT_ROLES,
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_response": "tool",
    "observation": "tool",
}

# form: (prompt column, column with more of the prompt, answer column), in order of recognition
_PAIRS: dict[str, tuple[str, str, str]] = {
    "alpaca": ("instruction", "input", "output"),
    "dolly": ("instruction", "context", "response"),
    "prompt_completion": ("prompt", "", "completion"),
    "prompt_response": ("prompt", "", "response"),
    "question_answer": ("question", "", "answer"),
    "question_response": ("question", "", "response"),
    "query_response": ("query", "", "response"),
}
_SYSTEM = ("system", "system_prompt")
_PAIR_PROMPTS = ("messages", "prompt", "question", "instruction", "query")


class Reject(Exception):
    """A record that cannot become an example.

    Args:
        reason: Why, in a few words that are the same for every such record.
        field: The field at fault, e.g. ``messages[1].content``, or ``""`` for the whole record.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason, field)
        self.reason = reason
        self.field = field


def recognise(columns: Collection[str], require: Require = "answer", where: str = "") -> str:
    """The form of a file with these columns.

    Args:
        columns: The names of all columns.
        require: With ``"answer"`` a form without an answer column is not accepted.
        where: The file, for the error.

    Raises:
        DataError: No form has these columns, or the form has no answers and they are required.
    """
    names = set(columns)
    if {"chosen", "rejected"} <= names:
        return "preference"
    for column, form in (("messages", "messages"), ("conversations", "sharegpt")):
        if column in names:
            return form
    if {"instruction", "instances"} <= names:
        return "seed_tasks"
    for form, (prompt, _, answer) in _PAIRS.items():
        if {prompt, answer} <= names:
            return form
    bare = next((form for form, pair in _PAIRS.items() if pair[0] in names), None)
    bare = bare or ("text" if "text" in names else None)
    if bare is None or require == "answer":
        problem = "no known form of examples has these columns"
        if bare is not None:
            problem = "these columns hold prompts or text, but no answers, and answers are required"
        known = "; ".join(f"{form}: {needs}" for form, needs in FORMS.items())
        raise DataError(
            f"{problem}: {', '.join(sorted(names)) or '(none)'}",
            where=where,
            fix=f"rename the columns to those of a known form ({known})",
        )
    return bare


def form_named(form: str) -> str:
    """`form` itself, checked.

    Raises:
        DataError: There is no such form; names the nearest one.
    """
    if form in FORMS:
        return form
    near = difflib.get_close_matches(form, FORMS, n=1)
    raise DataError(
        f"unknown form of data {form!r}",
        where="form",
        fix=f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(FORMS)}, auto",
    )


def convert(
    record: object, form: str, *, require: Require = "answer", max_chars: int = MAX_CHARS
) -> list[Example]:
    """The examples of one record: one, or one per instance of a seed task.

    Args:
        record: A parsed JSON object or a row of a table.
        form: One of :data:`FORMS`.
        require: What every example must have.
        max_chars: Most characters that one example may have.

    Raises:
        Reject: The record does not fit the form, or lacks what is required.

    Example:
        >>> convert({"question": "2 + 2?", "answer": "4"}, "question_answer")[0].answer
        '4'
    """
    if not isinstance(record, dict):
        raise Reject(f"{_kind(record)} instead of an object")
    try:
        examples = _CONVERTERS[form](record, form, require)
    except UnicodeEncodeError as error:  # half of a UTF-16 pair: no file can hold it
        raise Reject("half a character (a lone surrogate)") from error
    for example in examples:
        _check(example, require, max_chars)
        if record.get("id") not in (None, example.id):
            example.meta.setdefault("source_id", record["id"])
    return examples


def _check(example: Example, require: Require, max_chars: int) -> None:
    roles = {message["role"] for message in example.messages}
    if require != "any" and "user" not in roles:
        raise Reject("no user turn", "messages")
    if require == "answer" and "assistant" not in roles and example.chosen is None:
        raise Reject("no assistant turn", "messages")
    if require == "answer" and example.chosen is not None and not example.chosen.strip():
        raise Reject("empty answer", "chosen")
    for index, message in enumerate(example.messages):
        must_speak = {"user", "assistant"} if require == "answer" else {"user"}
        must_speak -= {"user"} if example.meta.get(BLANKED) else set()
        if message["role"] in must_speak and not message["content"].strip():
            raise Reject(f"empty {message['role']} turn", f"messages[{index}].content")
    length = sum(len(message["content"]) for message in example.messages)
    length += len(example.chosen or "") + len(example.rejected or "")
    if length > max_chars:
        raise Reject(f"longer than {max_chars:,} characters")


def _messages(record: Record, form: str, require: Require) -> list[Example]:
    turns = _turns(record, "messages", "role", "content", _CHAT_ROLES)
    return [Example(turns, _meta(record, {"messages", "chosen", "rejected"}))]


def _sharegpt(record: Record, form: str, require: Require) -> list[Example]:
    turns = _turns(record, "conversations", "from", "value", _SHAREGPT_ROLES)
    return [Example(_system(record) + turns, _meta(record, {"conversations", *_SYSTEM}))]


def _pair(record: Record, form: str, require: Require) -> list[Example]:
    prompt, more, answer = _PAIRS[form]
    used = {prompt, more, *_SYSTEM}
    turns = _system(record)
    turns.append({"role": "user", "content": _joined(record, prompt, record.get(more), more)})
    if _is_given(record.get(answer), require):
        turns.append({"role": "assistant", "content": _text(record, answer)})
        used.add(answer)
    return [Example(turns, _meta(record, used))]


def _is_given(answer: object, require: Require) -> bool:
    """Whether `answer` is to be read: where none is required, a list or a blank is left alone."""
    return require == "answer" or (isinstance(answer, str) and answer != "")


def _seed_tasks(record: Record, form: str, require: Require) -> list[Example]:
    instances = record.get("instances") or [{}]
    if not isinstance(instances, list):
        raise Reject(f"{_kind(instances)} instead of a list", "instances")
    meta = _meta(record, {"instruction", "instances"})
    examples = []
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise Reject(f"{_kind(instance)} instead of an object", f"instances[{index}]")
        field = f"instances[{index}]."
        prompt = _joined(record, "instruction", instance.get("input"), f"{field}input")
        turns: list[Message] = [{"role": "user", "content": prompt}]
        if _is_given(instance.get("output"), require):
            turns.append({"role": "assistant", "content": _text(instance, "output", field)})
        examples.append(Example(turns, dict(meta)))
    return examples


def _document(record: Record, form: str, require: Require) -> list[Example]:
    turns: list[Message] = [{"role": "user", "content": _text(record, "text")}]
    return [Example(turns, _meta(record, {"text"}))]


def _preference(record: Record, form: str, require: Require) -> list[Example]:
    if record.get("chosen") is None and record.get("rejected") is None and "messages" in record:
        return _messages(record, form, require)  # a file may hold pairs and plain rows
    sides, contexts = [], []
    for side in ("chosen", "rejected"):
        if isinstance(record.get(side), list):
            turns = _turns(record, side, "role", "content", _CHAT_ROLES)
            if turns[-1]["role"] != "assistant":
                raise Reject("does not end with an assistant turn", side)
            sides.append(turns[-1]["content"])
            contexts.append(turns[:-1])
        else:
            sides.append(_text(record, side))
            contexts.append([])
    if contexts[0] != contexts[1]:
        raise Reject("chosen and rejected do not share their prompt", "rejected")
    used = {"chosen", "rejected", *_SYSTEM, *_PAIR_PROMPTS}
    prompt = contexts[0] or _shared_prompt(record)
    return [Example(prompt, _meta(record, used), sides[0], sides[1])]


def _shared_prompt(record: Record) -> list[Message]:
    column = next((name for name in _PAIR_PROMPTS if record.get(name) is not None), None)
    if column is None:
        raise Reject("missing field", "prompt")
    if column == "messages" or isinstance(record[column], list):
        return _turns(record, column, "role", "content", _CHAT_ROLES)
    return [*_system(record), {"role": "user", "content": _text(record, column)}]


def _turns(
    record: Record, field: str, who: str, what: str, roles: dict[str, Role]
) -> list[Message]:
    turns = record.get(field)
    if isinstance(turns, str):  # a cell of a CSV file
        try:
            turns = json.loads(turns)
        except ValueError as error:
            raise Reject("text instead of a list of turns", field) from error
    if turns is None:
        raise Reject("null content" if field in record else "missing field", field)
    if not isinstance(turns, list):
        raise Reject(f"{_kind(turns)} instead of a list of turns", field)
    if not turns:
        raise Reject("no turns", field)
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        place = f"{field}[{index}]"
        if not isinstance(turn, dict):
            raise Reject(f"{_kind(turn)} instead of a turn", place)
        role = _text(turn, who, f"{place}.")
        if role not in roles:
            raise Reject(f"unknown role {role[:30]!r}", f"{place}.{who}")
        messages.append({"role": roles[role], "content": _text(turn, what, f"{place}.")})
    return messages


def _system(record: Record) -> list[Message]:
    for column in _SYSTEM:
        if record.get(column):
            return [{"role": "system", "content": _text(record, column)}]
    return []


def _joined(record: Record, prompt: str, more: object, field: str) -> str:
    """The prompt and, where there is one, its input after a blank line (our choice)."""
    text = _text(record, prompt)
    if more is None or more == "":
        return text
    if not isinstance(more, str):
        raise Reject(f"{_kind(more)} instead of text", field)
    return f"{text}\n\n{more}"


def _text(record: Record, column: str, prefix: str = "") -> str:
    if column not in record:
        raise Reject("missing field", f"{prefix}{column}")
    value = record[column]
    if value is None:
        raise Reject("null content", f"{prefix}{column}")
    if not isinstance(value, str):
        raise Reject(f"{_kind(value)} instead of text", f"{prefix}{column}")
    return value


def _meta(record: Record, used: set[str]) -> dict[str, Any]:
    """The row's own ``meta`` and every column that the form does not use."""
    meta = record.get("meta")
    if isinstance(meta, str):  # Parquet keeps it as one JSON column
        try:
            meta = json.loads(meta)
        except ValueError as error:
            raise Reject("invalid JSON", "meta") from error
    own = isinstance(meta, dict)
    result = dict(cast(dict[str, Any], meta)) if own else {}
    for name, value in record.items():
        if name not in used and name != "id" and value is not None and not (name == "meta" and own):
            result.setdefault(name, value)
    return result


def _kind(value: object) -> str:
    """What `value` is, in words that a person who wrote the file knows."""
    names = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


_CONVERTERS: dict[str, Callable[[Record, str, Require], list[Example]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "preference": _preference,
    "seed_tasks": _seed_tasks,
    **dict.fromkeys(_PAIRS, _pair),
    "text": _document,
}

FORMS: dict[str, str] = {
    "messages": "messages [{role, content}]",
    "sharegpt": "conversations [{from, value}]",
    "preference": "prompt, chosen, rejected",
    "seed_tasks": "instruction, instances [{input, output}]",
    **{
        form: ", ".join(
            f"[{name}]" if name == more else name for name in (prompt, more, answer) if name
        )
        for form, (prompt, more, answer) in _PAIRS.items()
    },
    "text": "text",
}
"""Every form by name, with the columns by which it is recognised."""
