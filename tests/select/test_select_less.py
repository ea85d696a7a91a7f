"""LESS: gradients of single rows are exact, projections keep angles, checkpoints add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tiny_models import ARCHITECTURES, Architecture, tiny_adapter
from torch import nn

from tilth.almanac.pool import pool as almanac_pool
from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.errors import DataError, ModelError, RecipeError, TilthError
from tilth.models.load import load
from tilth.select import LESS
from tilth.select._gradients import Gradients, Moments, Row, encoded, lora_layers
from tilth.select._projection import Projection
from tilth.select._warmup import Recipe, adapted, load_epoch, train

TALK = [
    Example.pair("How much is 2 and 3?", "2 + 3 = 5. The answer is 5."),
    Example.pair("Which pest troubles the variety Amber Gate?", "The aphid."),
    Example.pair(
        "When is barley sown?", "In early spring, when the soil is dry enough to walk on."
    ),
]
FAST: dict[str, Any] = {
    "count": 3,
    "warmup_rows": 6,
    "epochs": 2,
    "lora_rank": 2,
    "lora_alpha": 4,
    "batch_size": 3,
    "dimensions": 128,
}


def adapted_model(folder: Path, tmp_path: Path) -> tuple[nn.Module, list[Row]]:
    """A model with random LoRA weights, and three rows of different lengths."""
    model, tokenizer = load(f"{folder}+{tiny_adapter(tmp_path / 'adapter', folder)}", merge=False)
    rows = [encoded(tokenizer, example.messages, 256) for example in TALK]
    return model, [row for row in rows if row is not None]


def one_by_one(model: nn.Module, row: Row) -> dict[str, torch.Tensor]:
    """The gradient of one row's mean answer loss, by autograd alone."""
    weights = {name: layer.weight for name, layer in lora_layers(model).items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    ids, targets = torch.tensor([row[0]]), torch.tensor(row[1])
    log_TV = torch.log_softmax(model(input_ids=ids).logits[0, :-1], dim=-1)
    picked_T = log_TV.gather(1, ids[0, 1:, None])[:, 0]
    loss = -picked_T[targets[1:]].mean()
    found = torch.autograd.grad(loss, list(weights.values()))
    return dict(zip(weights, found, strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_of_a_batch_are_those_of_each_row_alone(
    models: dict[Architecture, Path], name: Architecture, tmp_path: Path
) -> None:
    model, rows = adapted_model(models[name], tmp_path)
    sizes = {n: layer.weight.numel() for n, layer in lora_layers(model).items()}
    whole = Projection(sizes, sum(sizes.values()))
    assert whole.copies
    maker = Gradients(model, whole)
    together = maker(rows)
    alone = np.concatenate([maker([row]) for row in rows])
    maker.close()
    np.testing.assert_allclose(together, alone, atol=1e-5)
    for row, found in zip(rows, together, strict=True):
        wanted = torch.cat([g.flatten() for g in one_by_one(model, row).values()])
        np.testing.assert_allclose(found, nn.functional.normalize(wanted, dim=0), atol=1e-5)


def test_seen_through_adam_a_gradient_is_the_step_that_adam_makes(
    tiny: Path, tmp_path: Path
) -> None:
    model, rows = adapted_model(tiny, tmp_path)
    layers = lora_layers(model)
    moments = {}
    for number, (name, layer) in enumerate(layers.items()):
        torch.manual_seed(number)
        shape = layer.weight.shape
        moments[name] = Moments(torch.randn(shape) * 1e-2, torch.rand(shape) * 1e-3)
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    maker = Gradients(model, Projection(sizes, sum(sizes.values())), moments)
    found = maker(rows)
    maker.close()
    for row, unit in zip(rows, found, strict=True):
        steps = []
        for name, gradient in one_by_one(model, row).items():
            weight = nn.Parameter(layers[name].weight.detach().clone())
            # At step 10,000 Adam's corrections for its start are 1.
            adam = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0)
            state = {"step": torch.tensor(1e4), "exp_avg": moments[name].first.clone()}
            adam.state[weight] = {**state, "exp_avg_sq": moments[name].second.clone()}
            before = weight.detach().clone()
            weight.grad = gradient.clone()
            adam.step()
            steps.append((before - weight.detach()).flatten())
        wanted = nn.functional.normalize(torch.cat(steps), dim=0)
        np.testing.assert_allclose(unit, wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_projections_keep_inner_products_and_depend_on_the_seed_alone(kind: Any) -> None:
    sizes = {"a": 3000, "b": 5000}
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(6, 8000) + 1.5 * torch.randn(1, 8000), dim=1)

    def projected(seed: int, dimensions: int = 2048) -> torch.Tensor:
        projection = Projection(sizes, dimensions, kind=kind, seed=seed)
        out = torch.zeros(6, dimensions)
        projection.add(out, "b", rows[:, 3000:])
        projection.add(out, "a", rows[:, :3000])
        return out

    errors = [(projected(s) @ projected(s).T - rows @ rows.T).abs().max() for s in range(4)]
    assert max(errors) < 5 * 2048**-0.5
    mean = torch.stack([projected(s, 64) @ projected(s, 64).T for s in range(60)]).mean(0)
    assert (mean - rows @ rows.T).abs().max() < 5 * (64 * 60) ** -0.5
    assert torch.equal(projected(1), projected(1))
    assert not torch.equal(projected(1), projected(2))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_the_matrix_is_the_same_kept_or_drawn_anew(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.randn(3, 5000)

    def projected() -> torch.Tensor:
        out = torch.zeros(3, 256)
        projection = Projection({"a": 5000}, 256, kind=kind)
        projection.add(out, "a", rows)
        return out

    kept = projected()
    monkeypatch.setattr("tilth.select._projection.KEPT", 0)
    assert torch.equal(projected(), kept)


def test_the_warm_up_goes_on_where_it_stopped(tiny: Path, tmp_path: Path) -> None:
    recipe = Recipe(2, 4, 0.3, 1e-2, epochs=3, batch_size=2, seed=5)

    def trained(folder: Path) -> list[bytes]:
        folder.mkdir(exist_ok=True)
        model, tokenizer = load(str(tiny))
        rows = [row for e in TALK if (row := encoded(tokenizer, e.messages, 256))]
        train(adapted(model, recipe), rows, recipe, folder)
        return [(folder / f"epoch-{n}.safetensors").read_bytes() for n in (1, 2, 3)]

    first = trained(tmp_path / "first")
    for left in (2, 3):
        (tmp_path / "first" / f"epoch-{left}.safetensors").unlink()
    assert trained(tmp_path / "first") == first
    assert len(set(first)) == 3
    model, _ = load(str(tiny))
    moments = load_epoch(adapted(model, recipe), tmp_path / "first" / "epoch-3.safetensors")
    assert all((m.second >= 0).all() and m.second.any() for m in moments.values())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    shares = {"word_problems": 1.0, "ethics": 1.0}
    rows = list(almanac_pool(40, shares, seed=2))
    queries = [row for row in almanac_pool(30, {"word_problems": 1.0}, seed=9)][:4]
    write_rows(folder / "pool.jsonl", rows)
    write_rows(folder / "queries.jsonl", queries)
    return {"pool": str(folder / "pool.jsonl"), "queries": str(folder / "queries.jsonl")}


def test_rows_like_the_queries_come_first(files: dict[str, str], tmp_path: Path) -> None:
    made = LESS(**files, **{**FAST, "count": 8, "warmup_rows": 20}).to(tmp_path / "out")
    skills = [row.meta["skill"] for row in read(made.folder)]
    assert skills.count("word_problems") >= 7
    lines = [json.loads(x) for x in made.path("selection.jsonl").read_text().splitlines()]
    kept = sorted((x for x in lines if x["kept"]), key=lambda x: x["rank"])
    assert [x["score"] for x in kept] == sorted((x["score"] for x in kept), reverse=True)
    assert all(x["query"] in {"0", "1", "2", "3"} for x in kept)
    assert made.manifest.metrics["adam"] is True
    assert sum(made.manifest.metrics["checkpoint_weights"]) == pytest.approx(1)


def test_round_robin_gives_every_task_its_turn(
    files: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    queries = [
        Example(row.messages, {**row.meta, "task": task})
        for row, task in zip(read(files["queries"]), "aabb", strict=True)
    ]
    write_rows(tmp_path / "tasks.jsonl", queries)
    settings = {**FAST, "pool": files["pool"], "queries": str(tmp_path / "tasks.jsonl")}
    method = LESS(**settings, model=str(tiny), rule="round_robin", **{})
    made = method.to(tmp_path / "out")
    lines = [json.loads(x) for x in made.path("selection.jsonl").read_text().splitlines()]
    pulls = sorted((x["rank"], x["query"].split("/")[0], x["round"]) for x in lines if x["kept"])
    assert pulls[0][1:] == ("a", 1)
    assert {task for _, task, _ in pulls} <= {"a", "b"}
    summary = json.loads(made.path("summary.json").read_text())
    assert [q["name"] for q in summary["queries"]] == ["a/0", "a/1", "b/2", "b/3"]


def test_a_shard_that_is_there_is_not_computed_again(
    files: dict[str, str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth.select._influence.SHARD", 10)
    method = LESS(**files, **FAST, model=str(tiny))
    whole = method.to(tmp_path / "whole", say=lambda line: None)
    computed: list[int] = []
    real = Gradients.__call__

    def counting(self: Gradients, rows: list[Row]) -> np.ndarray:
        computed.append(len(rows))
        if len(computed) == 6:
            raise KeyboardInterrupt
        return real(self, rows)

    monkeypatch.setattr(Gradients, "__call__", counting)
    with pytest.raises(KeyboardInterrupt):
        method.to(tmp_path / "out", say=lambda line: None)
    done = len(list((tmp_path / "out.scratch").glob("shard-*.npz")))
    assert done == 4  # the queries, then a batch for each shard of ten rows
    resumed = method.to(tmp_path / "out", say=lambda line: None)
    assert resumed.manifest.files == whole.manifest.files
    assert sum(computed[6:]) == 4 + 40  # all of the first checkpoint was there


def test_own_checkpoints_weigh_by_their_rates(
    files: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    adapters = [tiny_adapter(tmp_path / f"a{n}", tiny, seed=n) for n in (1, 2)]
    refs = [f"{tiny}+{adapter}" for adapter in adapters]
    common: dict[str, Any] = {**files, "model": str(tiny), "count": 40, "dimensions": 256}

    def influence(name: str, **more: Any) -> dict[str, float]:
        made = LESS(**common, **more).to(tmp_path / name, say=lambda line: None)
        assert "plain gradient" in " ".join(made.manifest.not_measured)
        return {row.id: row.meta["scores"]["influence"] for row in read(made.folder)}

    write_rows(tmp_path / "one.jsonl", list(read(files["queries"]))[:1])
    common["queries"] = str(tmp_path / "one.jsonl")
    first = influence("first", checkpoints=refs[:1])
    second = influence("second", checkpoints=refs[1:])
    both = influence("both", checkpoints=refs, learning_rates=[3e-4, 1e-4])
    for row, value in both.items():
        assert value == pytest.approx(0.75 * first[row] + 0.25 * second[row], abs=1e-5)


def test_adams_state_is_read_beside_an_adapter(
    files: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", tiny)
    model, _ = load(f"{tiny}+{adapter}", merge=False)
    state = {}
    for name, layer in lora_layers(model).items():
        state[f"{name}//exp_avg"] = torch.randn(layer.weight.shape) * 1e-3
        state[f"{name}//exp_avg_sq"] = torch.rand(layer.weight.shape) * 1e-5
    save_file(state, adapter / "optimizer.safetensors")
    method = LESS(**files, **FAST, model=str(tiny), checkpoints=[f"{tiny}+{adapter}"])
    made = method.to(tmp_path / "out")
    assert made.manifest.metrics["adam"] is True
    state.popitem()
    save_file(state, adapter / "optimizer.safetensors")
    with pytest.raises(DataError, match="lacks 1 of"):
        method.to(tmp_path / "damaged")


def test_bad_input_is_told(files: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    def problem(kind: type[TilthError], match: str, **settings: Any) -> None:
        with pytest.raises(kind, match=match):
            LESS(**{**files, **FAST, "model": str(tiny), **settings}).to(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    problem(ModelError, "carries no LoRA adapter", checkpoints=[str(tiny)])
    adapter = f"{tiny}+{tiny_adapter(tmp_path / 'adapter', tiny)}"
    problem(RecipeError, "2 learning rates", checkpoints=[adapter], learning_rates=[1.0, 2.0])
    write_rows(tmp_path / "long.jsonl", [Example.pair("a b c " * 200, "x")])
    problem(DataError, "query 0 has no answer token", queries=str(tmp_path / "long.jsonl"))
    (tmp_path / "none.jsonl").write_text("")
    problem(DataError, "empty", queries=str(tmp_path / "none.jsonl"))
    problem(DataError, "all 4 queries repeat held-out items", held_out=files["queries"])
    problem(ModelError, "cannot be loaded", model="openai:m@http://127.0.0.1:9/v1")


def test_rows_without_an_answer_in_reach_and_leaking_queries_are_said(
    tiny: Path, tmp_path: Path
) -> None:
    rows = [*TALK, Example.pair("far " * 300, "away"), Example.pair("What is dry?", "Hay.")]
    write_rows(tmp_path / "pool.jsonl", rows)
    write_rows(tmp_path / "queries.jsonl", [TALK[1]])
    said: list[str] = []
    settings = {**FAST, "count": 5, "pool": str(tmp_path / "pool.jsonl"), "model": str(tiny)}
    method = LESS(**settings, queries=str(tmp_path / "queries.jsonl"))
    made = method.to(tmp_path / "out", say=said.append)
    assert made.manifest.metrics["without_answer_token"] == 1
    assert made.manifest.metrics["rows_repeating_queries"] == 1
    assert any("1 rows of the pool repeat a query" in line for line in said)
    assert any("only 4 rows can be chosen, 5 were asked for" in line for line in said)
    lines = [json.loads(x) for x in made.path("selection.jsonl").read_text().splitlines()]
    assert "no answer token within" in lines[3]["reason"]


def test_a_plain_adapter_of_other_parts_is_refused(tiny: Path) -> None:
    model, _ = load(str(tiny))
    config = LoraConfig(r=2, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM")
    with pytest.raises(ModelError, match="no LoRA matrix of a linear layer"):
        lora_layers(get_peft_model(model, config))
