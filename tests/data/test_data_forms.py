"""Recognising and converting the forms in which people keep examples."""

from __future__ import annotations

from typing import Any

import pytest

from tilth.data import FORMS, Reject, convert, recognise
from tilth.data.forms import form_named
from tilth.errors import DataError

ASK = {"role": "user", "content": "2 + 2?"}
SAY = {"role": "assistant", "content": "4"}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": [ASK, SAY]}),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    ),
    ("alpaca", {"instruction": "2 + 2?", "input": "", "output": "4"}),
    ("alpaca", {"instruction": "2 + 2?", "output": "4"}),
    ("dolly", {"instruction": "2 + 2?", "context": "", "response": "4", "category": "sums"}),
    ("prompt_completion", {"prompt": "2 + 2?", "completion": "4"}),
    ("prompt_response", {"prompt": "2 + 2?", "response": "4"}),
    ("question_answer", {"question": "2 + 2?", "answer": "4"}),
    ("question_response", {"question": "2 + 2?", "response": "4"}),
    ("query_response", {"query": "2 + 2?", "response": "4"}),
    ("seed_tasks", {"instruction": "2 + 2?", "instances": [{"input": "", "output": "4"}]}),
]


@pytest.mark.parametrize(("form", "record"), CASES)
def test_every_form_is_recognised_and_says_the_same(form: str, record: dict[str, Any]) -> None:
    assert recognise(record.keys()) == form
    (example,) = convert(record, form)
    assert example.messages == [ASK, SAY]


def test_an_input_follows_its_instruction() -> None:
    (example,) = convert({"instruction": "Add.", "input": "2, 2", "output": "4"}, "alpaca")
    assert example.prompt == "Add.\n\n2, 2"


def test_a_system_column_becomes_the_system_turn() -> None:
    record = {"system_prompt": "Be brief.", "question": "2 + 2?", "response": "4"}
    (example,) = convert(record, recognise(record))
    assert [turn["role"] for turn in example.messages] == ["system", "user", "assistant"]


def test_sharegpt_roles_become_ours() -> None:
    turns = [("system", "s"), ("human", "u"), ("gpt", "a"), ("observation", "t"), ("gpt", "b")]
    record = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    (example,) = convert(record, "sharegpt")
    assert [turn["role"] for turn in example.messages] == [
        "system", "user", "assistant", "tool", "assistant",
    ]  # fmt: skip


def test_a_seed_task_gives_one_example_per_instance() -> None:
    instances = [{"input": "1", "output": "one"}, {"input": "2", "output": "two"}]
    record = {"id": "s1", "name": "n", "instruction": "Spell.", "instances": instances}
    examples = convert(record, "seed_tasks")
    assert [example.answer for example in examples] == ["one", "two"]
    assert examples[0].meta == {"name": "n", "source_id": "s1"}


PREFERENCES: list[dict[str, Any]] = [
    {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    {"question": "2 + 2?", "chosen": "4", "rejected": "5"},
    {"messages": [ASK], "chosen": "4", "rejected": "5"},
    {"prompt": [ASK], "chosen": [SAY], "rejected": [{"role": "assistant", "content": "5"}]},
    {"prompt": "x", "chosen": [ASK, SAY], "rejected": [ASK, {"role": "assistant", "content": "5"}]},
]


@pytest.mark.parametrize("record", PREFERENCES)
def test_preference_pairs_share_their_prompt(record: dict[str, Any]) -> None:
    assert recognise(record) == "preference"
    (example,) = convert(record, "preference")
    assert (example.messages, example.chosen, example.rejected) == ([ASK], "4", "5")


def test_pairs_and_plain_rows_may_share_a_file() -> None:
    (example,) = convert({"messages": [ASK, SAY], "chosen": None, "rejected": None}, "preference")
    assert (example.answer, example.chosen) == ("4", None)


def test_other_columns_and_the_foreign_id_go_into_meta() -> None:
    (example,) = convert({"id": 7, "question": "q", "answer": "a", "topic": "t"}, "question_answer")
    assert example.meta == {"topic": "t", "source_id": 7}
    assert example.id != 7


def test_prompts_without_answers_are_fine_where_none_is_required() -> None:
    assert recognise({"instruction", "topic"}, "prompt") == "alpaca"
    assert recognise({"text"}, "any") == "text"
    (example,) = convert(
        {"question": "q", "answer": ["a", "b"]}, "question_answer", require="prompt"
    )
    assert example.answer == ""
    assert example.meta["answer"] == ["a", "b"], "what is not used is kept"


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"Frage", "Antwort"}, "no known form"), ({"prompt"}, "no answers"), (set(), "(none)")],
)
def test_unknown_columns_are_named_with_the_known_forms(columns: set[str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        recognise(columns, "answer", "pool.jsonl")
    assert words in caught.value.problem
    assert all(column in caught.value.problem for column in columns)
    assert all(form in caught.value.fix for form in FORMS)
    assert caught.value.where == "pool.jsonl"


def test_an_unknown_form_names_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'alpaca'"):
        form_named("alpacca")


def said(content: object) -> dict[str, object]:
    return {"role": "assistant", "content": content}


BAD: list[tuple[str, object, str, str]] = [
    ("messages", [1], "a list instead of an object", ""),
    ("messages", {"messages": None}, "null content", "messages"),
    ("messages", {"x": 1}, "missing field", "messages"),
    ("messages", {"messages": []}, "no turns", "messages"),
    ("messages", {"messages": "hello"}, "text instead of a list of turns", "messages"),
    ("messages", {"messages": ["hello"]}, "text instead of a turn", "messages[0]"),
    (
        "messages",
        {"messages": [{"role": "robot", "content": "x"}]},
        "unknown role 'robot'",
        "messages[0].role",
    ),
    ("messages", {"messages": [ASK, said(None)]}, "null content", "messages[1].content"),
    (
        "messages",
        {"messages": [ASK, {"role": "assistant"}]},
        "missing field",
        "messages[1].content",
    ),
    ("messages", {"messages": [ASK]}, "no assistant turn", "messages"),
    ("messages", {"messages": [SAY]}, "no user turn", "messages"),
    (
        "messages",
        {"messages": [{"role": "user", "content": " \n"}, SAY]},
        "empty user turn",
        "messages[0].content",
    ),
    ("messages", {"messages": [ASK, said("")]}, "empty assistant turn", "messages[1].content"),
    ("messages", {"messages": [ASK, SAY], "meta": "{"}, "invalid JSON", "meta"),
    (
        "messages",
        {"messages": [{"role": "user", "content": "\ud800"}, SAY]},
        "half a character (a lone surrogate)",
        "",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "alien", "value": "x"}]},
        "unknown role 'alien'",
        "conversations[0].from",
    ),
    ("question_answer", {"question": "q", "answer": 42}, "a number instead of text", "answer"),
    ("question_answer", {"question": None, "answer": "a"}, "null content", "question"),
    ("alpaca", {"instruction": "i", "input": [], "output": "o"}, "a list instead of text", "input"),
    (
        "seed_tasks",
        {"instruction": "i", "instances": {"input": ""}},
        "an object instead of a list",
        "instances",
    ),
    (
        "seed_tasks",
        {"instruction": "i", "instances": [{"output": "o"}, {}]},
        "missing field",
        "instances[1].output",
    ),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": None}, "null content", "rejected"),
    ("preference", {"prompt": "p", "chosen": " ", "rejected": "b"}, "empty answer", "chosen"),
    ("preference", {"chosen": "a", "rejected": "b"}, "missing field", "prompt"),
    (
        "preference",
        {"chosen": [ASK, SAY], "rejected": [SAY]},
        "chosen and rejected do not share their prompt",
        "rejected",
    ),
    (
        "preference",
        {"chosen": [ASK], "rejected": [ASK]},
        "does not end with an assistant turn",
        "chosen",
    ),
    ("question_answer", {"question": "q", "answer": "a" * 100}, "longer than 100 characters", ""),
]


@pytest.mark.parametrize(("form", "record", "reason", "field"), BAD)
def test_a_bad_record_says_what_and_where(
    form: str, record: object, reason: str, field: str
) -> None:
    with pytest.raises(Reject) as caught:
        convert(record, form, max_chars=100)
    assert (caught.value.reason, caught.value.field) == (reason, field)
