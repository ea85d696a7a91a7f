"""R-Tuning in the world of names: its facts, its model, its questions, and quick cells."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tilth.models import load
from tilth.models.wording import WORDINGS, Renderer
from tilth.replicate._names_world import EXPOSURES, RELATIONS, NamesWorld, base_model
from tilth.replicate.frame import Measured
from tilth.replicate.r_tuning_names import R_TUNING_NAMES, cell, pages
from tilth.seeds import TestSeed, TuningSeed


@pytest.fixture(scope="module")
def world() -> NamesWorld:
    return NamesWorld(TuningSeed(1))


def test_a_world_is_that_of_its_seed(world: NamesWorld) -> None:
    assert len(set(world.names)) == 600
    assert world.facts == NamesWorld(TuningSeed(1)).facts != NamesWorld(TestSeed(101)).facts
    facts = [fact for name in world.names for fact in world.facts[name]]
    assert {fact.exposure for fact in facts} == set(EXPOSURES)
    assert {fact.exposure for fact in facts if fact.told != fact.value} == {4, 16}
    assert all(len({fact.exposure for fact in row}) == 1 for row in world.facts.values())


def test_the_text_tells_every_fact_as_often_as_it_says(world: NamesWorld) -> None:
    read = Counter(answer for _, answer in world.text(random.Random(0)))
    told: Counter[str] = Counter()
    for row in world.facts.values():
        for fact in row:
            told[f" {fact.told}\n"] += fact.exposure
    assert read == +told


def test_every_question_is_whole_words_of_one_number(world: NamesWorld) -> None:
    tokenizer = world.tokenizer()
    renderer = Renderer(tokenizer, WORDINGS["short"])
    texts = [prompt + answer for prompt, answer in world.text(random.Random(0))[:200]]
    lengths = set()
    for text in texts:
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
        lengths.add(len(ids))
    assert len(lengths) == 1
    assert all(len(ids) == 1 for ids in renderer.pair(WORDINGS["short"].tail("sure")))


def test_exams_share_no_name_with_tuning(world: NamesWorld) -> None:
    found = pages(world, TuningSeed(1))
    names = {part: {row.meta["entity"] for row in rows} for part, rows in found.items()}
    assert len(names["train"]) == 300
    assert not names["exam"] & (names["train"] | names["validation"])
    assert not names["train"] & names["validation"]
    exams = {row.meta["exam"]: set() for row in found["exam"]}
    for row in found["exam"]:
        exams[row.meta["exam"]].add(row.meta["relation"])
    assert exams["ood"] == {RELATIONS[2]}
    assert exams["id"] | {row.meta["relation"] for row in found["train"]} == set(RELATIONS[:2])
    pairs = [row for row in found["exam"] if row.meta["exam"] == "strangers"]
    assert {row.meta["exposure"] for row in pairs[::2]} == {0}
    assert {row.meta["exposure"] for row in pairs[1::2]} == {64}
    assert not any(row.meta.get("answerable", True) for row in pairs[::2])


def test_the_model_is_trained_once_and_again_to_the_same_weights(tmp_path: Path) -> None:
    world = NamesWorld(TuningSeed(1), 20)
    first = base_model(world, TuningSeed(1), tmp_path / "one")
    made = (first / "model.safetensors").read_bytes()
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    base_model(world, TuningSeed(1), tmp_path / "one")
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    (first / ".whole").unlink()  # killed before it was whole
    base_model(world, TuningSeed(1), tmp_path / "one")
    assert (first / "model.safetensors").read_bytes() == made
    assert load(str(first))[0].num_parameters() < 250_000


def test_every_method_has_its_shuffled_control() -> None:
    roles = {arm.name: arm.role for arm in R_TUNING_NAMES.arms}
    assert roles["shuffled"] == roles["r-tuning-r-shuffled"] == "control"
    assert roles["vanilla"] == roles["untouched"] == "baseline"
    assert len(R_TUNING_NAMES.seeds(quick=False).testing) >= 5


def test_quick_cells(tmp_path: Path) -> None:
    arms = {arm.name: arm for arm in R_TUNING_NAMES.arms}
    found: dict[str, Measured] = {}
    for name in ("r-tuning", "vanilla", "r-tuning.strangers"):
        folder = tmp_path / "cells" / name
        folder.mkdir(parents=True)
        found[name] = cell(arms[name], TestSeed(101), True, folder)
    whole = found["r-tuning"].scores
    assert {"right_id", "ap_sure_ood", "refused_strangers", "pretrain_w"} <= set(whole)
    assert found["vanilla"].scores["coverage_id"] == 1
    strangers = found["r-tuning.strangers"].scores["refused_strangers"]
    assert isinstance(strangers, list)
    assert set(strangers) <= {0.0, 1.0}
    assert found["r-tuning"].spent.as_dict()["tokens_trained"] > 0
