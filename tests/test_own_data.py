"""The user's own files: the recipe as it stands, GSM8K, and the 175 seed tasks, on a tiny model.

The real files lie beside the project where there are any; the two small files of the recipe cover
the same code everywhere. Run this file to write those again: ``python tests/test_own_data.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_teacher import serve

from tilth.almanac.skills import SKILLS, Split
from tilth.data import read
from tilth.evaluate.metrics import number_in
from tilth.generate import SelfInstruct
from tilth.recipe import Recipe
from tilth.run import run
from tilth.seeds import SeedPlan

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "own-data.yaml"
FILES: dict[str, tuple[Split, int]] = {"train": ("train", 200), "held_out": ("validation", 60)}
SHARED = ROOT.parent / "shared" / "data"
GSM8K = SHARED / "scalequest" / "gsm8k_train.jsonl.xz"
GSM8K_TEST = SHARED / "scalequest" / "gsm8k_test.jsonl.xz"
SEED_TASKS = SHARED / "goliath" / "self_instruct_seed_tasks.jsonl"
FAST = ["tuned.max_steps=2", "tuned.batch_size=4", "tuned.adapter.rank=2", "tuned.epochs=1"]
EXAMS = ("base", "base_plain", "tuned_exam")


def page(name: str) -> list[dict[str, str]]:
    """Word problems of one to three steps in the form of GSM8K."""
    split, count = FILES[name]
    rows = []
    for index in range(count):
        item = SKILLS["word_problems"].item(index // 3, level=index % 3 + 1, split=split)
        steps = item.worked.removesuffix(f" The answer is {item.answer}.")
        rows.append({"question": item.prompt, "answer": f"{steps}\n#### {item.answer}"})
    return rows


@pytest.mark.parametrize("name", list(FILES))
def test_the_recipes_files_are_the_almanacs(name: str) -> None:
    path = RECIPE.parent / "own-data" / f"{name}.jsonl"
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == page(name)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with room for a real word problem in bytes."""
    from tiny_models import tiny_model

    return tiny_model(tmp_path_factory.mktemp("own") / "reader", "qwen2", context=2048, layers=1)


def compared(reader: Path, tmp_path: Path, *overrides: str) -> dict[str, object]:
    settings = [f"{exam}.{pair}" for exam in EXAMS for pair in ("limit=3", "max_new_tokens=4")]
    recipe = Recipe.read(RECIPE, [f"model={reader}", *FAST, *settings, *overrides])
    result = run(recipe, tmp_path / "run", say=lambda line: None)
    assert (result.artefacts["tuned"].folder / "model").is_dir()
    verdict: dict[str, object] = json.loads(
        result.artefacts["verdict"].path("comparison.json").read_text()
    )
    return verdict


@pytest.mark.integration
def test_the_recipe_as_it_stands(reader: Path, tmp_path: Path) -> None:
    verdict = compared(reader, tmp_path, "sample.count=8")
    assert verdict["items_per_seed"] == 3
    assert set(verdict["arms"]) == {"base", "base_plain", "tuned"}  # type: ignore[call-overload]


@pytest.mark.integration
@pytest.mark.skipif(not GSM8K.is_file(), reason=f"{GSM8K} is not here")
def test_the_recipe_on_gsm8k(reader: Path, tmp_path: Path) -> None:
    own = [f"data={GSM8K}", f"held_out={GSM8K_TEST}"]
    verdict = compared(reader, tmp_path, "sample.count=8", *own)
    assert verdict["items_per_seed"] == 3


@pytest.mark.skipif(not GSM8K_TEST.is_file(), reason=f"{GSM8K_TEST} is not here")
def test_every_reference_of_gsm8k_has_its_number() -> None:
    rows = read(GSM8K_TEST)
    assert len(rows) == 1319
    for row in rows:
        marked = row.answer.rpartition("#### ")[2]
        assert str(number_in(row.answer)) == marked.replace(",", "")


@pytest.mark.integration
@pytest.mark.skipif(not SEED_TASKS.is_file(), reason=f"{SEED_TASKS} is not here")
def test_the_recipe_on_the_175_seed_tasks(reader: Path, tmp_path: Path) -> None:
    own = [f"held_out={SEED_TASKS}"]
    own += [f"{exam}.metric=rouge_l" for exam in EXAMS]
    own += [f"base_plain.shots={RECIPE.parent / 'own-data' / 'train.jsonl'}"]
    verdict = compared(reader, tmp_path, f"data={SEED_TASKS}", "sample.count=175", *own)
    assert verdict["items_per_seed"] == 3


@pytest.mark.skipif(not SEED_TASKS.is_file(), reason=f"{SEED_TASKS} is not here")
def test_the_175_seed_tasks_seed_new_ones(tmp_path: Path) -> None:
    with serve() as teacher:
        made = SelfInstruct(seeds=str(SEED_TASKS), teacher=teacher, count=5, round_size=2).to(
            tmp_path / "out", plan=SeedPlan()
        )
    rows = list(read(made.folder))
    assert len(rows) == 5
    assert len(rows[0].meta["parents"]) == 8  # eight seeds: none of its own exists yet


if __name__ == "__main__":
    for name in FILES:
        lines = (json.dumps(row, ensure_ascii=False) for row in page(name))
        (RECIPE.parent / "own-data" / f"{name}.jsonl").write_text("".join(f"{x}\n" for x in lines))
