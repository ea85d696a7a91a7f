"""Evolution: groups, failed steps that are counted and started again, all by hand-made teachers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from scripted_teacher import serve

from tilth.data import Example, read, write_rows
from tilth.errors import DataError
from tilth.generate._evolving import _OPERATORS, English, evolver, fault
from tilth.generate.evolve import Evolve
from tilth.models import Completion


def quiet(line: str) -> None:
    """Says nothing."""


def rewriter(prompt: str, seed: int) -> str:
    """Adds a word that counts the round; spoils what speaks of a plough, and once of a barn."""
    marks = ("#Rewritten prompt#:", "#Rewritten response#:")
    assert prompt.rstrip().endswith(marks)
    start = "#Given prompt#:\n" if marks[0] in prompt else "#Given response#:\n"
    text = prompt.split(start)[1].rsplit("\n\n#Rewritten", 1)[0]
    if "plough" in text:
        return ""
    if "barn" in text and text.count("more") == 1 and seed % 3:
        return f"This is the rewritten prompt: {text}"
    if "cow" in text:
        return text.upper()
    return f"#Rewritten prompt#: {text} more"


SEEDS = ["Praise the barn.", "Draw a plough.", "Count the cows.", "Plan a fence."]


def seeds(path: Path, more: list[Example] | None = None) -> str:
    rows = [Example.pair(prompt, f"An answer to: {prompt}") for prompt in SEEDS]
    write_rows(path, [*rows, *(more or [])])
    return str(path)


def test_a_group_is_the_seed_and_what_came_of_it(tmp_path: Path) -> None:
    data = seeds(tmp_path / "seeds.jsonl")
    with serve(rewriter) as teacher:
        made = Evolve(data=data, teacher=teacher).to(tmp_path / "out", seed=1, say=quiet)
    rows = list(read(made.folder, require="prompt"))
    groups: dict[str, list[Example]] = {}
    for row in rows:
        groups.setdefault(row.meta["group"], []).append(row)
    by_seed = {group[0].prompt: group for group in groups.values()}
    assert set(by_seed) == set(SEEDS)
    fence = by_seed["Plan a fence."]
    assert [row.prompt for row in fence] == ["Plan a fence." + " more" * n for n in range(6)]
    assert [row.meta["variant"] for row in fence] == list(range(6))
    assert all(b.meta["parents"] == [a.id] for a, b in pairwise(fence))
    assert {row.meta["operator"] for row in fence[1:]} <= set(_OPERATORS["complexity"])
    assert all(row.answer == "" for row in rows), "the answers are to the seeds alone"
    metrics = made.manifest.metrics
    assert len(by_seed["Draw a plough."]) == len(by_seed["Count the cows."]) == 1
    assert metrics["dropped"]["empty"] == metrics["dropped"]["unchanged"] == 5
    assert metrics["group_sizes"]["1"] == 2
    assert metrics["evolved"] + sum(metrics["dropped"].values()) == 4 * 5
    assert metrics["rows_out"] == len(rows)
    listed = [json.loads(x) for x in made.path("rejected.jsonl").read_text().splitlines()]
    assert len(listed) == sum(metrics["dropped"].values())


def test_a_failed_step_starts_again_from_the_last_good_variant(tmp_path: Path) -> None:
    data = seeds(tmp_path / "seeds.jsonl")
    with serve(rewriter) as teacher:
        made = Evolve(data=data, teacher=teacher).to(tmp_path / "out", seed=1, say=quiet)
    barn = [r for r in read(made.folder, require="prompt") if "barn" in r.prompt]
    failed = made.manifest.metrics["dropped"]["marker words"]
    assert failed >= 1
    assert len(barn) == 6 - failed
    assert [r.prompt for r in barn] == ["Praise the barn." + " more" * n for n in range(len(barn))]
    assert [r.meta["round"] for r in barn] != list(range(len(barn)))


def test_responses_evolve_beside_their_prompt(tmp_path: Path) -> None:
    data = seeds(tmp_path / "seeds.jsonl")
    with serve(rewriter) as teacher:
        method = Evolve(data=data, teacher=teacher, aspect="quality", rounds=2)
        made = method.to(tmp_path / "out", say=quiet)
    fence = [r for r in read(made.folder) if r.prompt == "Plan a fence."]
    assert [r.answer for r in fence] == [
        "An answer to: Plan a fence." + " more" * n for n in range(3)
    ]
    assert {r.meta["operator"] for r in fence} <= {"seed", *_OPERATORS["quality"]}


def test_the_operators_are_four_and_five_and_all_are_drawn(tmp_path: Path) -> None:
    assert len(English("complexity").operators) == 4
    assert len(English("quality").operators) == 5
    rows = [Example.pair(f"Say {n}.", "Yes.") for n in range(20)]
    write_rows(tmp_path / "seeds.jsonl", rows)
    data = str(tmp_path / "seeds.jsonl")
    with serve(rewriter) as teacher:
        made = Evolve(data=data, teacher=teacher, count=12, rounds=3).to(
            tmp_path / "out", say=quiet
        )
    drawn = made.manifest.metrics["operators"]
    assert set(drawn) == set(_OPERATORS["complexity"])
    assert sum(drawn.values()) == 36


def test_seeds_with_several_turns_and_repeats_are_put_aside(tmp_path: Path) -> None:
    two = Example(
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"},
        ]
    )
    data = seeds(tmp_path / "seeds.jsonl", [two, Example.pair("Plan a fence.", "Other words.")])
    with serve(rewriter) as teacher:
        made = Evolve(data=data, teacher=teacher, rounds=1).to(tmp_path / "out", say=quiet)
    listed = [json.loads(x) for x in made.path("rejected.jsonl").read_text().splitlines()]
    assert sorted(r["reason"] for r in listed if not r["field"]) == ["repeat", "several turns"]
    assert made.manifest.metrics["seeds"] == 4


def test_a_teacher_that_cannot_is_told(tmp_path: Path) -> None:
    with serve(lambda prompt, seed: "") as teacher:
        with pytest.raises(DataError, match=r"not one of 4 seeds could be evolved \(empty 20\)"):
            Evolve(data=seeds(tmp_path / "s.jsonl"), teacher=teacher).to(
                tmp_path / "out", say=quiet
            )


@pytest.mark.parametrize(
    ("text", "before", "reason"),
    [
        ("A new one.", ["An old one."], ""),
        ("  ", ["An old one."], "empty"),
        ("an OLD  one.", ["An old one."], "unchanged"),
        ("First.", ["First.", "Second."], "unchanged"),
        ("Here is my Rewritten Prompt: do it.", ["Do it."], "marker words"),
        ("Shorten the given prompt in rhyme.", ["Shorten the given prompt."], ""),
        ("Rewritten prompt:\nDo it in rhyme.", ["Do it."], ""),
    ],
)
def test_what_is_accepted(text: str, before: list[str], reason: str) -> None:
    assert fault(Completion(text, "stop", 1, 1), before)[1] == reason


def test_unfinished_and_failed_answers_are_not_used() -> None:
    assert fault(Completion("Half of", "length", 1, 1), ["x"])[1] == "unfinished"
    assert fault(Completion("", "error", 0, 0, "down"), ["x"])[1] == "the teacher failed"


def test_the_prompts_name_what_they_must() -> None:
    harder = evolver("complexity", compact=False).ask("constrain", "Sow it {now}.", "")
    assert "Sow it {now}." in harder
    assert "10 to 20 words" in harder
    better = evolver("quality", compact=False).ask("detail", "Sow it.", "Yes.")
    assert better.index("Sow it.") < better.index("Yes.")
    assert evolver("complexity", compact=True).ask("harder", "Sow it.", "").endswith("Sow it.")
    assert "Yes." in evolver("quality", compact=True).ask("improve", "Sow it.", "Yes.")
