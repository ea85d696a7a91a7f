"""Joint ranking: the parser by hand, dropped groups counted, rows in the scorer's own form."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_teacher import serve

from tilth.data import Example, read, write_rows
from tilth.data.rating import rating_prompt
from tilth.errors import DataError
from tilth.generate._ranking import ask_together, read_score, read_scores
from tilth.generate.rank_together import RankTogether


def quiet(line: str) -> None:
    """Says nothing."""


@given(st.lists(st.integers(1, 6), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_lines_are_read_in_any_order(scores: list[int], rng: random.Random) -> None:
    lines = [f"[{n}] Score: {score}" for n, score in enumerate(scores, 1)]
    rng.shuffle(lines)
    assert read_scores("\n".join(lines), len(scores)) == (scores, "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("[2] Score: 4\n[1] Score: 1\n[3] Score: 6", ""),
        ("Here they are:\n\n**[1] Score: 1**\n- [2] score 4\n3. Score: 6 (too hard)", ""),
        ("[1] Score: 1\n[3] Score: 6", "index missing"),
        ("[1] Score: 1\n[2] Score: 4\n[2] Score: 4\n[3] Score: 6", "index twice"),
        ("[1] Score: 1\n[2] Score: 4\n[3] Score: 6\n[4] Score: 6", "unknown index"),
        ("[0] Score: 1\n[1] Score: 4\n[2] Score: 6", "unknown index"),
        ("[1] Score: 1\n[2] Score: 4\n[3] Score: 7", "score outside 1..6"),
        ("[1] Score: 1\n[2] Score: 4.5\n[3] Score: 6", "score outside 1..6"),
        ("[1] Score: 0\n[2] Score: 4\n[3] Score: 6", "score outside 1..6"),
        ("I cannot judge that.", "no score"),
        ("", "no score"),
    ],
)
def test_what_is_wrong_with_an_answer(said: str, reason: str) -> None:
    assert read_scores(said, 3) == ([] if reason else [1, 4, 6], reason)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("4", 4),
        ("Score: 6.", 6),
        ("I give it a 3/5", 3),
        ("7", None),
        ("4.5", None),
        ("good", None),
    ],
)
def test_one_score(said: str, score: int | None) -> None:
    assert read_score(said) == score


def shown(prompt: str) -> list[str]:
    return [text for _, text in re.findall(r"^\[(\d+)\] (?!Score)(.*)$", prompt, re.MULTILINE)]


def by_words(prompt: str, seed: int) -> str:
    """Scores by the number of words; forgets a line where a variant says "forget"."""
    texts = shown(prompt)
    lines = [f"[{n}] Score: {min(6, len(t.split()))}" for n, t in enumerate(texts, 1)]
    return "\n".join(lines[1:] if any("forget" in t for t in texts) else lines[::-1])


def variants(path: Path, *groups: list[str]) -> str:
    rows = [
        Example([{"role": "user", "content": text}], {"group": f"g{n}", "variant": v})
        for n, group in enumerate(groups)
        for v, text in enumerate(group)
    ]
    write_rows(path, rows)
    return str(path)


def test_every_variant_gets_its_own_score(tmp_path: Path) -> None:
    ladder = ["Go", "Go on", "Go on now", "Go on now and then", "Go on now and then to it all"]
    data = variants(
        tmp_path / "v.jsonl", ladder, ["A b c", "A"], ["forget it", "x"], ["alone"], ["x"] * 7
    )
    with serve(by_words) as judge:
        made = RankTogether(data=data, judge=judge).to(tmp_path / "out", seed=2, say=quiet)
    rows = list(read(made.folder))
    told = {row.prompt: row.answer for row in rows}
    assert told == {rating_prompt("complexity", t): str(min(6, len(t.split()))) for t in ladder} | {
        rating_prompt("complexity", t): str(len(t.split())) for t in ("A b c", "A")
    }
    metrics = made.manifest.metrics
    assert metrics["dropped"] == {
        "one variant only": 1,
        "more than 6 variants": 1,
        "index missing": 1,
    }
    assert (metrics["groups"], metrics["groups_scored"], metrics["rows_out"]) == (5, 2, 7)
    assert metrics["told_apart"] == 1
    assert metrics["rises_with_evolution"] == 0  # one group rises, the other falls
    listed = [json.loads(x) for x in made.path("rejected.jsonl").read_text().splitlines()]
    assert len(listed) == 3


def test_all_variants_are_shown_at_once_in_a_drawn_order(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def judge_says(prompt: str, seed: int) -> str:
        seen.append(shown(prompt))
        return by_words(prompt, seed)

    groups = [[f"{n} {v}" for v in range(6)] for n in range(5)]
    data = variants(tmp_path / "v.jsonl", *groups)
    with serve(judge_says) as judge:
        RankTogether(data=data, judge=judge).to(tmp_path / "out", seed=2, say=quiet)
        assert sorted(map(sorted, seen)) == groups
        assert any(texts != sorted(texts) for texts in seen)
        seen.clear()
        RankTogether(data=data, judge=judge, shuffle=False).to(tmp_path / "plain", say=quiet)
        assert sorted(seen) == groups


def test_the_control_asks_about_each_variant_alone(tmp_path: Path) -> None:
    seen: list[str] = []

    def generous(prompt: str, seed: int) -> str:
        seen.append(prompt)
        return "Score: 5" if "spoilt" not in prompt else "I will not say"

    data = variants(tmp_path / "v.jsonl", ["Go", "Go on"], ["It", "spoilt"])
    with serve(generous) as judge:
        made = RankTogether(data=data, judge=judge, apart=True).to(tmp_path / "out", say=quiet)
    assert len(seen) == 4
    assert [row.answer for row in read(made.folder)] == ["5", "5"]
    assert made.manifest.metrics["dropped"] == {"no score": 1}
    assert made.manifest.metrics["told_apart"] == 0


def test_responses_are_ranked_under_their_question(tmp_path: Path) -> None:
    rows = [Example.pair("Why?", text, group="g") for text in ("Because", "Because of the rain")]
    write_rows(tmp_path / "v.jsonl", rows)
    with serve(by_words) as judge:
        made = RankTogether(data=str(tmp_path / "v.jsonl"), judge=judge, aspect="quality").to(
            tmp_path / "out", say=quiet
        )
    assert [(r.prompt, r.answer) for r in read(made.folder)] == [
        (rating_prompt("quality", "Why?", "Because"), "1"),
        (rating_prompt("quality", "Why?", "Because of the rain"), "4"),
    ]
    assert "helpfulness, relevance, accuracy" in ask_together("quality", "Why?", ["a"], False)


def test_a_row_without_a_group_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "v.jsonl", [Example.pair("a", "b", skill="x")])
    with pytest.raises(DataError, match="has no 'group' in its meta"):
        RankTogether(data=str(tmp_path / "v.jsonl")).to(tmp_path / "out", say=quiet)


def test_a_judge_that_cannot_is_told(tmp_path: Path) -> None:
    data = variants(tmp_path / "v.jsonl", ["a", "b"], ["c", "d"])
    with serve(lambda prompt, seed: "All are fine.") as judge:
        with pytest.raises(DataError, match=r"not one of 2 groups could be scored \(no score 2\)"):
            RankTogether(data=data, judge=judge).to(tmp_path / "out", say=quiet)
