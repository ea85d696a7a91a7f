"""The novelty index against the plain definition of ROUGE-L."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.generate._novelty import NoveltyIndex

words = st.lists(
    st.sampled_from(["sow", "rye", "oats", "in", "the", "early", "spring", "and", "barley"]),
    max_size=8,
)


def rouge_l(a: list[str], b: list[str]) -> float:
    """ROUGE-L F1 by the textbook table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            longer = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else longer
    return 2 * table[-1][-1] / max(len(a) + len(b), 1)


@given(st.lists(words, max_size=6), words, st.sampled_from([0.0, 0.5, 0.7]))
def test_the_nearest_is_the_nearest(known: list[list[str]], text: list[str], above: float) -> None:
    index = NoveltyIndex()
    for other in known:
        index.add(" ".join(other).title() + ".")
    best = max((rouge_l(text, other) for other in known), default=0.0)
    score, place = index.nearest(" ".join(text), above)
    if best > above:
        assert score == pytest.approx(best)
        assert rouge_l(text, known[place]) == pytest.approx(best)
    else:
        assert (score, place) == (0.0, -1)


def test_the_same_words_are_a_repeat() -> None:
    index = NoveltyIndex()
    index.add("Sort: pear, fig.")
    assert "sort pear fig" in index
    assert "sort fig pear" not in index
    assert len(index) == 1
