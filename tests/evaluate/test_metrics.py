"""Metrics on hand-computed cases, and what must hold for any text."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.evaluate.metrics import METRICS, choice, contains, exact, f1, final_number, number_in
from tilth.evaluate.metrics import rouge_l as rouge


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is -3", "-3"),
        ("1,234", "1234"),
        ("first 7 then 12.", "12"),
        ("She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 18", "18"),
        ("#### 1,000,000", "1000000"),
        ("#### 5\n\nQuestion: 7 apples", "5"),
        ("we get 5-3", "3"),
        ("= -$4.50.", "-4.50"),
        ("it costs $1,234.50.", "1234.50"),
        ("1,2345", "2345"),
        ("a total of 1,234,567 seeds", "1234567"),
        ("it is \u22127 degrees", "-7"),
        ("about .5 of it", "0.5"),
        ("2e3", "2000"),
        ("5%", "5"),
        ("18eggs", "18"),
    ],
)
def test_the_last_number_wins(text: str, number: str) -> None:
    assert number_in(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "no number", "-", ",", "####", "...", "e9"[:1]])
def test_a_text_without_a_number_is_wrong_and_not_an_error(text: str) -> None:
    assert number_in(text) is None
    assert final_number(text, "#### 3") == 0.0
    assert final_number("3", text) == 0.0


def test_final_numbers_are_compared_as_numbers() -> None:
    assert final_number("The answer is 3.0", "#### 3") == 1.0
    assert final_number("The answer is 1,200.", "steps 5\n#### 1200") == 1.0
    assert final_number("The answer is 12", "#### 120") == 0.0


def test_exact_and_contains() -> None:
    assert exact("  Deep  Red.", "deep red") == 1.0
    assert exact("red", "deep red") == 0.0
    assert contains("It is deep red, I think", "Deep red") == 1.0
    assert contains("it is infrared", "red") == 0.0
    assert contains("anything", "") == 0.0


def test_f1_and_rouge_l_by_hand() -> None:
    # got {cat, sat}, truth {cat, sat, on, mat}: shared 2, F1 = 2*2/6
    assert f1("the cat sat", "a cat sat on the mat") == pytest.approx(4 / 6)
    assert f1("", "") == 1.0
    assert f1("", "word") == 0.0
    # "police killed the gunman" / "police kill the gunman" share police..the..gunman: 2*3/8
    assert rouge("police kill the gunman", "police killed the gunman") == pytest.approx(6 / 8)
    assert rouge("the gunman kill police", "police killed the gunman") == pytest.approx(4 / 8)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(c)", "C"),
        ("b) because it rains", "B"),
        ("The answer is (D).", "D"),
        ("A plant needs water, so C", "C"),
        ("The answer is A, no: the answer is B.", "B"),
    ],
)
def test_choice_letters(text: str, letter: str) -> None:
    assert choice(text, letter) == 1.0
    assert choice(text, "J") == 0.0


def test_no_choice_is_wrong() -> None:
    assert choice("I do not know", "A") == 0.0
    assert choice("", "A") == 0.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_metric_is_total_and_bounded(text: str, reference: str) -> None:
    for metric in METRICS.values():
        assert 0.0 <= metric(text, reference) <= 1.0


@given(st.decimals(-(10**9), 10**9, places=2), st.text("abc .,:#", max_size=10))
def test_a_written_number_is_read_back(number: Decimal, before: str) -> None:
    assert number_in(f"{before} {number:,}") == number
