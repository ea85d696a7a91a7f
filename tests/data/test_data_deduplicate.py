"""Deduplication: nothing is dropped without the row that stays in its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.data import Example, deduplicate
from tilth.data.words import ngrams, words
from tilth.errors import DataError
from tilth.seeds import stream

VOCABULARY = [f"word{i}" for i in range(500)]


def row(text: str, **meta: object) -> Example:
    return Example([{"role": "user", "content": text}], dict(meta))


def sentence(draw, length: int = 60) -> list[str]:
    return [VOCABULARY[i] for i in draw.integers(0, len(VOCABULARY), length)]


def similarity(a: Example, b: Example, size: int) -> float:
    one, two = ({*ngrams(words(x.prompt), size)} or {x.prompt} for x in (a, b))
    return len(one & two) / len(one | two)


def test_exact_duplicates_are_found_whatever_their_case_and_spacing() -> None:
    rows = [row("Say hi."), row("Say  HI"), row("say bye"), row("say, hi!")]
    result = deduplicate(rows, near=None)
    assert result.kept == [0, 2]
    assert [(d.index, d.kept_index, d.reason, d.similarity) for d in result.dropped] == [
        (1, 0, "exact", 1.0),
        (3, 0, "exact", 1.0),
    ]
    assert result.dropped[0].kept_id == rows[0].id
    assert result.counts == {"exact": 2}


def test_the_compared_part_can_be_chosen() -> None:
    rows = [Example.pair("q", "a"), Example.pair("q", "b"), Example.pair("r", "a")]
    assert deduplicate(rows).kept == [0, 1, 2]
    assert deduplicate(rows, part="prompt").kept == [0, 2]
    assert deduplicate(rows, part="answer").kept == [0, 1]


def test_rows_without_words_are_kept() -> None:
    assert deduplicate([row("!"), row("?"), row("!")]).kept == [0, 1, 2]


def test_near_duplicates_above_the_threshold_are_found() -> None:
    draw = stream(0, "near")
    originals = [sentence(draw) for _ in range(100)]
    copies = [[*text[:-2], "other", "end"] for text in originals]  # 54 of 58 runs of 5 words stay
    result = deduplicate([row(" ".join(text)) for text in originals + copies])
    assert result.kept == list(range(100))
    assert {d.index: d.kept_index for d in result.dropped} == {i + 100: i for i in range(100)}
    assert {round(d.similarity, 4) for d in result.dropped} == {round(54 / 58, 4)}
    assert result.counts == {"near": 100}


def test_what_is_below_the_threshold_stays() -> None:
    draw = stream(1, "near")
    originals = [sentence(draw) for _ in range(100)]
    cousins = [[*text[:30], *sentence(draw, 30)] for text in originals]
    assert len(deduplicate([row(" ".join(t)) for t in originals + cousins]).kept) == 200


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=12), max_size=20),
    st.sampled_from([0.3, 0.6, 0.9, 1.0]),
    st.integers(1, 3),
)
def test_every_dropped_row_names_a_kept_row_that_is_as_similar_as_said(
    texts: list[list[str]], near: float, size: int
) -> None:
    rows = [row(" ".join(text)) for text in texts]
    result = deduplicate(rows, near=near, size=size)
    dropped = [duplicate.index for duplicate in result.dropped]
    assert sorted(result.kept + dropped) == list(range(len(rows)))
    for duplicate in result.dropped:
        assert duplicate.kept_index in result.kept
        assert duplicate.kept_index < duplicate.index
        assert duplicate.id == rows[duplicate.index].id
        assert duplicate.kept_id == rows[duplicate.kept_index].id
        real = similarity(rows[duplicate.index], rows[duplicate.kept_index], size)
        assert duplicate.similarity == pytest.approx(real)
        assert real >= near


def test_words_of_languages_without_spaces() -> None:
    assert words("雨が降る rain") == ["雨", "が", "降", "る", "rain"]


@pytest.mark.parametrize("options", [{"near": 0.0}, {"near": 1.5}, {"size": 0}])
def test_settings_out_of_range(options: dict) -> None:
    with pytest.raises(DataError):
        deduplicate([], **options)
