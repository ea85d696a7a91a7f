"""Exams and the user's own file on a real, tiny model: forms, seeds, rows, and repeatability."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilth.almanac.exams import exam
from tilth.artefacts import Artefact
from tilth.data import write_rows
from tilth.data.example import Example
from tilth.errors import DataError, RecipeError
from tilth.evaluate import Answers, Compare, Exams
from tilth.evaluate._asking import Question, plain_text
from tilth.evaluate._scores import read_scores, shared_items
from tilth.seeds import SeedPlan, TestSeed, TuningSeed

PLAN = SeedPlan.of(tuning=[1], testing=[11, 12])
SMALL: dict[str, Any] = {"skills": ("lists", "functions"), "per_level": 1, "max_new_tokens": 6}


def rows_of(made: Artefact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.path("scores.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def chat(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return Exams(model=str(tiny), **SMALL).to(tmp_path_factory.mktemp("exam") / "chat", plan=PLAN)


def test_every_test_seed_sits_its_own_exam(chat: Artefact) -> None:
    rows = rows_of(chat)
    asked = [i.id for s in (11, 12) for i in exam(["lists", "functions"], 1, TestSeed(s))]
    assert [row["item"] for row in rows] == asked
    assert {row["seed"] for row in rows} == {11, 12}
    assert all(row["finish"] in ("stop", "length") for row in rows)
    metrics = chat.manifest.metrics
    assert metrics["score"] == pytest.approx(sum(row["score"] for row in rows) / len(rows))
    assert set(metrics["by_skill"]) == {"lists", "functions"}
    assert metrics["estimate"]["seeds"] == 2


def test_batches_do_not_change_the_scores(chat: Artefact, tiny: Path, tmp_path: Path) -> None:
    one = Exams(model=str(tiny), **SMALL, batch_size=1).to(tmp_path / "one", plan=PLAN)
    assert one.path("scores.jsonl").read_bytes() == chat.path("scores.jsonl").read_bytes()


def test_the_tuning_phase_sees_other_questions(tiny: Path, tmp_path: Path) -> None:
    made = Exams(model=str(tiny), **SMALL, phase="tuning").to(tmp_path / "out", plan=PLAN)
    asked = [item.id for item in exam(["lists", "functions"], 1, TuningSeed(1))]
    assert [row["item"] for row in rows_of(made)] == asked


def test_plain_form_pairs_with_chat_form(chat: Artefact, tiny: Path, tmp_path: Path) -> None:
    plain = Exams(model=str(tiny), **SMALL, form="plain", shots=1).to(tmp_path / "p", plan=PLAN)
    verdict = Compare(baseline=str(chat.folder), arms={"plain": str(plain.folder)}).to(
        tmp_path / "v", plan=PLAN
    )
    result = json.loads(verdict.path("comparison.json").read_text())
    assert result["seeds"] == [11, 12]
    assert result["arms"]["plain"]["chance"].keys() == {"lists", "functions"}


def test_an_unknown_skill_names_the_nearest(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="lists"):
        Exams(model=str(tiny), skills=("list",)).to(tmp_path / "out")


def test_the_two_forms_of_a_question() -> None:
    question = Question(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 3?"}],
        (("2 + 2?", "4"),),
    )
    turns = question.conversation()
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert plain_text(turns) == (
        "Be brief.\n\nQuestion: 2 + 2?\nAnswer: 4\n\nQuestion: 3 + 3?\nAnswer:"
    )


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "held_out.jsonl"
    rows = [Example.pair(f"How much is {n} and 1?", f"It is {n + 1}") for n in range(4)]
    rows.append(Example.pair("Name a tree.", "oak", answers=["oak", "ash"], skill="trees"))
    write_rows(path, rows)
    return path


def test_own_answers_greedy_and_sampled(tiny: Path, held_out: Path, tmp_path: Path) -> None:
    own = {"model": str(tiny), "data": str(held_out), "metric": "rouge_l", "max_new_tokens": 6}
    greedy = rows_of(Answers(**own).to(tmp_path / "greedy", plan=PLAN))
    assert [row["seed"] for row in greedy] == [11] * 5
    assert greedy[4]["skill"] == "trees"
    sampled = rows_of(Answers(**own, temperature=1.0).to(tmp_path / "sampled", plan=PLAN))
    assert [row["seed"] for row in sampled] == [11] * 5 + [12] * 5
    assert [r["output"] for r in sampled[:5]] != [r["output"] for r in sampled[5:]]
    first = Answers(**own, limit=2).to(tmp_path / "first", plan=PLAN)
    assert [row["item"] for row in rows_of(first)] == [row["item"] for row in greedy[:2]]


def test_shots_must_not_be_held_out_questions(tiny: Path, held_out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 0"):
        Answers(model=str(tiny), data=str(held_out), shots=str(held_out)).to(tmp_path / "out")


def test_only_questions_of_a_fixed_file_are_shared_by_all_seeds(
    chat: Artefact, tiny: Path, held_out: Path, tmp_path: Path
) -> None:
    own = {"model": str(tiny), "data": str(held_out), "metric": "rouge_l", "max_new_tokens": 6}
    made = Answers(**own, temperature=1.0).to(tmp_path / "sampled", plan=PLAN)
    assert shared_items(read_scores(str(made.folder)))
    assert not shared_items(read_scores(str(chat.folder)))


def test_levels_that_no_skill_has(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"levels \[9\]"):
        Exams(model=str(tiny), skills=("lists",), levels=(9,)).to(tmp_path / "out")
