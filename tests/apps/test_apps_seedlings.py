"""Training seedlings from scratch at a size of seconds: the command, kept parts, the card."""

import json

import pytest

from tilth.almanac.seedlings.pretrain import Size
from tilth.apps.seedlings import card as cards
from tilth.apps.seedlings.card import facts_by_exposure
from tilth.apps.seedlings.train import train_seedlings
from tilth.errors import RecipeError


def test_an_unknown_name_is_told(tmp_path):
    with pytest.raises(RecipeError, match="'smal'") as error:
        train_seedlings(tmp_path, ["smal"])
    assert "small" in error.value.fix


def test_facts_are_grouped_by_what_the_text_told():
    from tilth.almanac.skills import SKILLS

    items = [SKILLS["facts"].item(n, level=2, split="tuning") for n in range(30)]
    rows = [{"skill": "facts", "item": i.id, "output": f" {i.meta['told']}."} for i in items]
    rows.append({"skill": "logic", "item": "logic/1/tuning/0/0", "output": "x"})
    grouped = facts_by_exposure(rows)
    assert {exposure for _, exposure in grouped} == {64}
    assert sum(len(hits) for hits in grouped.values()) == 30
    assert all(hit == 1.0 for hits in grouped.values() for hit in hits)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_command_makes_models_that_load(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    tiny = Size(layers=1, width=32, inner=32, heads=2, tokens=1, small=True)
    real = cards.measure
    monkeypatch.setattr(cards, "measure", lambda folder: real(folder, per_level=1))
    said: list[str] = []
    made = train_seedlings(
        tmp_path, sizes={"small": tiny, "large": tiny}, lessons=200, say=said.append
    )
    for name, folder in made.items():
        assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 10_000
        assert f"# seedling:{name}" in (folder / "README.md").read_text()
        assert (
            json.loads((folder / "scores.json").read_text())["exams"]["chat"]["all"]["items"] > 10
        )
    before = (made["teacher"] / "model.safetensors").read_bytes()
    train_seedlings(tmp_path, sizes={"small": tiny, "large": tiny}, lessons=200, say=said.append)
    assert (made["teacher"] / "model.safetensors").read_bytes() == before
    assert sum("tokenizer:" in line for line in said) == 1
