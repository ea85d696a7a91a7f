"""The English prompt set: reading lists and instances as models really write them."""

from __future__ import annotations

import pytest

from tilth.generate._writing import English, _input_first, _output_first
from tilth.models import Completion


def said(text: str, finish: str = "stop") -> Completion:
    return Completion(text, finish, 1, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("9. Name three fruits.\n10. Plan a day.", ["Name three fruits.", "Plan a day."]),
        ("Sure, here they are:\n\n9) One.\n\n10) Two.\n\nEnjoy!", ["One.", "Two."]),
        (
            "9. **Sort these words.**\n 10. It has\n two lines.",
            ["Sort these words.", "It has two lines."],
        ),
        ("no list at all", []),
        ("9. About version 3.5 of it.", ["About version 3.5 of it."]),
    ],
)
def test_lists(text: str, items: list[str]) -> None:
    assert English().read(text, unfinished=False) == items


def test_a_list_that_was_cut_off_loses_its_last_item() -> None:
    assert English().read("9. Whole task.\n10. Half a ta", unfinished=True) == ["Whole task."]


def test_the_prompt_shows_examples_as_one_numbered_line_each() -> None:
    prompt = English().ask(["Add the\nnumbers.", "Sing."])
    assert "1. Add the numbers.\n2. Sing.\n" in prompt
    assert "tasks 3 to 10" in prompt
    assert English().instruction("Sort these.\n\npear, fig") == "Sort these."


def test_input_first() -> None:
    row = _input_first("Sort these.", said("Input: pear, fig\nOutput: fig, pear"), 0)
    assert (row.prompt, row.answer, row.fault) == ("Sort these.\n\npear, fig", "fig, pear", "")
    row = _input_first("Name a tree.", said("**Input:** None\n**Output:** Oak.\nIt is old."), 0)
    assert (row.prompt, row.answer) == ("Name a tree.", "Oak.\nIt is old.")
    assert _input_first("Sort.", said("fig, pear"), 0).fault == "no instance in the answer"
    assert _input_first("Sort.", said("Output: fi", "length"), 0).fault == "answer unfinished"
    assert _input_first("Sort.", said("", "error"), 0).fault == "the teacher failed"


def test_output_first_draws_among_the_labels() -> None:
    text = "Output: good\nInput: I like it.\nOutput: bad\nInput: I hate it."
    rows = {_output_first("Good or bad?", said(text), seed).answer for seed in range(12)}
    assert rows == {"good", "bad"}
    row = _output_first("Good or bad?", said(text, "length"), 1)
    assert (row.prompt, row.answer) == ("Good or bad?\n\nI like it.", "good")
    assert _output_first("Good or bad?", said("Good"), 0).fault == "no instance in the answer"
