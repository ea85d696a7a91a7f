"""Decontamination by shared word n-grams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.data import Example, decontaminate, read
from tilth.errors import DataError
from tilth.seeds import stream

LONG = (
    "A farmer sowed forty rows of barley beside the northern river in March "
    "and lost seven of them to the late frost; how many rows were left?"
)
EXAM = {"exam/7": LONG, "exam/8": "Which pest eats the roots of winter wheat near Aldern?"}


def test_a_planted_question_is_found_with_its_item_and_run() -> None:
    rows = [
        Example.pair("How do I sow barley?", "In rows."),
        Example.pair(f"Please solve this: {LONG.upper()} Thanks.", "33"),
    ]
    result = decontaminate(rows, EXAM)
    assert result.kept == [0]
    (found,) = result.found
    assert (found.index, found.id, found.item, found.size) == (1, rows[1].id, "exam/7", 13)
    assert found.ngram == "a farmer sowed forty rows of barley beside the northern river in march"
    assert found.covered == 1.0
    assert (result.items, result.short) == (2, 0)


def test_every_turn_is_searched_and_no_run_crosses_turns() -> None:
    across = Example.pair(LONG[:60], LONG[60:])
    assert decontaminate([Example.pair("x", LONG)], EXAM).kept == []
    assert decontaminate([Example.pair("x", "y", system=LONG)], EXAM).kept == []
    pair = Example([{"role": "user", "content": "x"}], chosen=LONG, rejected="z")
    assert decontaminate([pair], EXAM).kept == []
    assert decontaminate([across], {"e": LONG[40:90]}, rules=((8, 0.0),)).kept == [0]


def test_eight_words_count_only_where_they_cover_half_of_the_item() -> None:
    nine = "which pest eats the roots of winter wheat near"  # of the item's ten words
    assert decontaminate([Example.pair(nine, "")], EXAM).found[0].item == "exam/8"
    eight_of_many = Example.pair("rows of barley beside the northern river in may", "")
    assert decontaminate([eight_of_many], EXAM).kept == [0]
    assert decontaminate([eight_of_many], EXAM, rules=((8, 0.0),)).kept == []


def test_thirteen_words_are_enough_in_any_long_item() -> None:
    item = LONG + " " + "Explain every step of your answer in plain words. " * 10
    row = Example.pair("lost seven of them to the late frost how many rows were left", "")
    (found,) = decontaminate([row], {"long": item}).found
    assert found.size == 13
    assert found.covered == pytest.approx(13 / (27 + 90), abs=1e-4)


def test_short_common_phrases_are_not_contamination() -> None:
    phrases = ["how many rows were left?", "what is the sum of", "the answer is 7", "in March"]
    rows = [Example.pair(phrase, phrase) for phrase in phrases]
    assert decontaminate(rows, EXAM).kept == [0, 1, 2, 3]


def test_the_wording_of_a_template_is_not_contamination() -> None:
    template = "read the page of the almanac below with care and then answer with one word: {}"
    draw = stream(0, "names")
    names = [" ".join(str(i) for i in draw.integers(0, 10**6, 14)) for _ in range(12)]
    exam = {str(i): template.format(name) for i, name in enumerate(names)}
    result = decontaminate([Example.pair(template.format("barley"), "")], exam)
    assert result.kept == [0]
    assert result.ignored > 0
    assert decontaminate([Example.pair(exam["3"], "")], exam).found[0].item == "3"
    assert decontaminate([Example.pair(template.format("x"), "")], exam, common=12).kept == []


def test_items_shorter_than_every_rule_count_as_a_whole() -> None:
    exam = {"q": "What is 17 + 25?"}
    rows = [
        Example.pair("What is 17 + 25?", "42"),
        Example.pair("Tell me: what is 17 + 25?", "42"),
        Example.pair("What is 17 + 26?", "43"),
    ]
    result = decontaminate(rows, exam)
    assert result.kept == [1, 2]
    assert (result.short, result.found[0].size, result.found[0].ngram) == (1, 4, "what is 17 25")


def test_an_exam_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    path.write_text(json.dumps({"id": "gsm/1", "question": LONG, "answer": "33"}) + "\n")
    exam = read(path)
    (found,) = decontaminate([Example.pair(LONG, "33")], exam).found
    assert found.item == "gsm/1"
    named = [Example.pair(LONG, "33", item="sums/2/0")]
    assert decontaminate([Example.pair(LONG, "33")], named).found[0].item == "sums/2/0"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(13, 40), st.integers(0, 30), st.integers(0, 30))
def test_a_planted_run_of_13_words_is_always_found(
    seed: int, length: int, before: int, after: int
) -> None:
    draw = stream(seed, "plant")
    item = [f"e{i}" for i in draw.integers(0, 10**9, length)]
    noise = [f"n{i}" for i in draw.integers(0, 10**9, before + after)]
    start = int(draw.integers(0, length - 12))
    planted = [*noise[:before], *item[start : start + 13], *noise[before:]]
    rows = [Example.pair(" ".join(noise) or "x", ""), Example.pair(" ".join(planted), "")]
    result = decontaminate(rows, {"item": " ".join(item)})
    assert result.kept == [0]
    assert result.found[0].ngram == " ".join(item[start : start + 13])


@pytest.mark.parametrize("rules", [((0, 0.5),), ((8, 1.5),)])
def test_impossible_rules_are_errors(rules) -> None:
    with pytest.raises(DataError, match="rule"):
        decontaminate([], EXAM, rules=rules)


def test_an_empty_exam_is_an_error() -> None:
    with pytest.raises(DataError, match="no items"):
        decontaminate([], {})
