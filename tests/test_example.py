"""The Example: its id is its content."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tilth.data.example import Example, content_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def test_the_id_is_the_same_on_every_machine() -> None:
    # blake2b-64 of the canonical JSON of the one user turn and its answer
    body = b'{"messages":[{"content":"2 + 2?","role":"user"},{"content":"4","role":"assistant"}]}'
    import hashlib

    assert Example.pair("2 + 2?", "4").id == hashlib.blake2b(body, digest_size=8).hexdigest()


def test_provenance_does_not_change_the_id() -> None:
    assert Example.pair("a", "b", teacher="x").id == Example.pair("a", "b").id


def test_each_part_of_the_content_changes_the_id() -> None:
    ids = {
        Example.pair("a", "b").id,
        Example.pair("b", "a").id,
        Example.pair("a", "b", system="c").id,
        Example([{"role": "user", "content": "a"}], chosen="b", rejected="c").id,
        Example([{"role": "user", "content": "a"}], chosen="c", rejected="b").id,
    }
    assert len(ids) == 5


def test_prompt_and_answer_are_the_last_turns() -> None:
    turns = [("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]
    example = Example([{"role": role, "content": text} for role, text in turns])  # type: ignore[typeddict-item]
    assert (example.prompt, example.answer) == ("3", "4")
    assert Example([]).prompt == Example([]).answer == ""


def test_a_given_id_is_kept() -> None:
    assert Example([], id="mine").id == "mine"


@given(TEXT, TEXT, st.none() | TEXT, st.dictionaries(TEXT, TEXT | st.integers()))
def test_the_dictionary_form_comes_back(prompt: str, answer: str, chosen: str | None, meta) -> None:
    example = Example(Example.pair(prompt, answer).messages, meta, chosen, chosen)
    row = json.loads(json.dumps(example.as_dict()))
    assert Example.from_dict(row) == example
    assert content_id(row["messages"], chosen=chosen, rejected=chosen) == example.id
