"""`tune.sft` as a user meets it: any architecture, plain folders, honest cards, clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, Architecture, tiny_adapter, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tilth.artefacts import Artefact
from tilth.errors import ArtefactError, DataError, ModelError, RecipeError, TrainingError
from tilth.models.chat import encode_chat
from tilth.tune._precision import has_bf16, resolve_precision, threads_for, with_threads
from tilth.tune.sft import SFT


def conversation(question: str, answer: str) -> dict[str, object]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of 24 sums."""
    rows = [
        conversation(f"How much is {i} and {i + 1}?", "The answer is " + f"{2 * i + 1}. " * (i % 5))
        for i in range(1, 25)
    ]
    rows = [r for r in rows if r["messages"][1]["content"].strip()]  # type: ignore[index]
    return write(tmp_path_factory.mktemp("data") / "sums.jsonl", rows)


FAST = {"batch_size": 6, "max_steps": 8, "learning_rate": 1e-2, "log_every": 1}
RANK_4 = {"kind": "lora", "rank": 4}


def tuned(out: Path, **settings: object) -> Artefact:
    return SFT(**{**FAST, "adapter": RANK_4, **settings}).to(out, say=lambda line: None)  # type: ignore[arg-type]


def losses(artefact: Artefact) -> list[float]:
    return [json.loads(x)["loss"] for x in artefact.path("metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("adapter", ["lora:rank=4", "full"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_architecture_learns_and_loads_unchanged(
    models: dict[Architecture, Path], sums: str, tmp_path: Path, name: Architecture, adapter: str
) -> None:
    artefact = tuned(tmp_path / "out", model=str(models[name]), data=sums, adapter=adapter)
    assert losses(artefact)[-1] < 0.9 * losses(artefact)[0]
    folder = artefact.path("metrics.jsonl").parent / "model"
    loader = AutoPeftModelForCausalLM if adapter != "full" else AutoModelForCausalLM
    model = loader.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    ids = torch.tensor([encode_chat(tokenizer, turns).input_ids])
    base = AutoModelForCausalLM.from_pretrained(models[name]).eval()
    with torch.no_grad():
        assert (model(ids).logits - base(ids).logits).abs().max() > 1e-3
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.pt"))
    if adapter != "full":
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(models[name])
    else:
        assert model.config.use_cache  # as the base had it, not as training needs it


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tied_weights_and_no_chat_template(sums: str, tmp_path: Path, name: Architecture) -> None:
    base = tiny_model(tmp_path / "base", name, chat_template=False, tied=True)
    artefact = tuned(
        tmp_path / "out", model=str(base), data=sums, adapter="full", batching="packed"
    )
    assert losses(artefact)[-1] < losses(artefact)[0]
    folder = tmp_path / "out" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    # The form in which it was tuned travels with it.
    prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "User: hi\nAssistant:"


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    tiny: Path, sums: str, tmp_path: Path
) -> None:
    given = {
        "model": str(tiny),
        "data": sums,
        "adapter": {"rank": 4, "dropout": 0.1},
        "max_steps": 3,
    }
    first = tuned(tmp_path / "a", **given)
    second = tuned(tmp_path / "b", **given)
    assert first.digest == second.digest
    other = SFT(**{**FAST, **given}).to(tmp_path / "c", seed=1, say=lambda line: None)
    weights = "model/adapter_model.safetensors"
    assert other.path(weights).read_bytes() != first.path(weights).read_bytes()


def test_manifest_card_and_funnel_tell_what_was_done(tiny: Path, sums: str, tmp_path: Path) -> None:
    artefact = tuned(tmp_path / "out", model=str(tiny), data=sums)
    metrics, cost = artefact.manifest.metrics, artefact.manifest.cost
    assert metrics["steps"] == 8
    assert metrics["rows_trained"] == metrics["rows_in"]
    assert cost["tokens_trained"] == metrics["tokens"] > metrics["target_tokens"] > 0
    assert cost["flops"] > 2 * metrics["tokens"] * metrics["parameters"]
    card = artefact.path("model/README.md").read_text()
    assert card.startswith("---\nbase_model:")
    for word in ("library_name: peft", "sums.jsonl", "sha256", '"rank": 4', "flops", "weights"):
        assert word in card, word
    assert str(tmp_path) not in card
    assert artefact.path("rejected.jsonl").read_text() == ""


def test_an_adapter_on_top_of_an_adapter_is_merged_and_saved_whole(
    tiny: Path, sums: str, tmp_path: Path
) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", tiny)
    tuned(tmp_path / "out", model=str(adapter), data=sums, max_steps=2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert model.num_parameters() == AutoModelForCausalLM.from_pretrained(tiny).num_parameters()


def test_rows_that_cannot_be_trained_on_are_listed(tiny: Path, tmp_path: Path) -> None:
    rows = [conversation(f"Sow row {i}?", "Yes, sow.") for i in range(18)]
    rows.insert(4, conversation("Tell all.", "word " * 400))
    data = write(tmp_path / "rows.jsonl", rows)
    artefact = tuned(tmp_path / "out", model=str(tiny), data=data, max_steps=2)
    (listed,) = [json.loads(x) for x in artefact.path("rejected.jsonl").read_text().splitlines()]
    assert listed["line"] == 5
    assert "max_length" in listed["reason"]
    assert artefact.manifest.metrics["rows_rejected"] == 1
    assert artefact.manifest.metrics["rows_trained"] == 18


def test_too_many_unusable_rows_stop_the_run(tiny: Path, sums: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be trained on") as caught:
        tuned(tmp_path / "out", model=str(tiny), data=sums, max_length=8)
    assert "max_length" in caught.value.fix


def test_divergence_stops_and_keeps_the_last_good_weights(
    tiny: Path, sums: str, tmp_path: Path
) -> None:
    given = {"adapter": "full", "learning_rate": 1e30, "warmup_ratio": 0}
    trainer = {"optim": "sgd", "max_grad_norm": 0.0}
    with pytest.raises(TrainingError, match=r"diverged at step \d+ with learning rate") as caught:
        tuned(tmp_path / "out", model=str(tiny), data=sums, trainer=trainer, **given)
    kept = Path(caught.value.where.rpartition("; ")[2])
    model = AutoModelForCausalLM.from_pretrained(kept)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"adaptre": "lora"}, ValidationError, "adapter"),
        ({"adapter": {"rnak": 4}}, ValidationError, "rank"),
        ({"adapter": "lora:rank=0"}, ValidationError, "rank"),
        ({"adapter": "lroa"}, ValidationError, "lora"),
        ({"adapter": {"targets": ["no_such"]}}, RecipeError, "q_proj"),
        ({"trainer": {"report_too": []}}, RecipeError, "report_to"),
        ({"trainer": {"learning_rate": 1}}, RecipeError, "decided by the settings"),
        ({"model": "./nowhere"}, ModelError, "no such model folder"),
        ({"data": "nowhere.jsonl"}, ArtefactError, "no such file"),
    ],
)
def test_errors_say_what_to_do(
    tiny: Path,
    sums: str,
    tmp_path: Path,
    settings: dict[str, object],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error) as caught:
        tuned(tmp_path / "out", **{"model": str(tiny), "data": sums, **settings})
    assert words in str(caught.value)


def test_the_method_imports_without_torch() -> None:
    code = (
        "import sys, tilth.tune.sft; assert not {'torch', 'peft', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_estimate_needs_no_model_in_memory(tiny: Path, sums: str) -> None:
    method = SFT(model=str(tiny), data=sums, epochs=2)
    estimate = method.estimate()
    size = Path(sums).stat().st_size
    assert estimate["tokens_trained"] == round(size / 4 * 2)
    weights = AutoModelForCausalLM.from_pretrained(tiny).num_parameters()
    assert estimate["flops"] == pytest.approx(4 * weights * size / 4 * 2)
    assert SFT(model=str(tiny), data="made-by-an-earlier-step").estimate() == {}


@pytest.mark.parametrize("adapter", ["lora:rank=4", "full"])
def test_bf16_trains_and_saves_float32(tiny: Path, sums: str, tmp_path: Path, adapter: str) -> None:
    given = {"model": str(tiny), "data": sums, "adapter": adapter, "precision": "bf16"}
    artefact = tuned(tmp_path / "out", **given)
    assert artefact.manifest.metrics["precision"] == "bf16"
    assert losses(artefact)[-1] < 0.9 * losses(artefact)[0]
    (weights,) = (tmp_path / "out" / "model").glob("*.safetensors")
    assert {t.dtype for t in load_file(weights).values()} == {torch.float32}


def test_precision_and_threads_follow_the_machine_and_the_size() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("bf16", cpu, 1) == "bf16"
    assert resolve_precision("auto", cpu, 1_000_000) == "fp32"
    assert resolve_precision("auto", cpu, 10**9) == ("bf16" if has_bf16(cpu) else "fp32")
    assert threads_for(1_000_000, None) == 1
    assert threads_for(5_000_000, None) <= 2
    assert threads_for(5_000_000, 7) == 7
    before = torch.get_num_threads()
    state = torch.get_rng_state()
    with with_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        torch.rand(1)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_the_bytes_do_not_depend_on_the_process(
    models: dict[Architecture, Path], sums: str, tmp_path: Path
) -> None:
    """Sets come in another order in a process with another hash seed."""
    saved = []
    for number in ("1", "2"):
        code = (
            "from tilth.tune.sft import SFT\n"
            f"SFT(model={str(models['llama'])!r}, data={sums!r}, max_steps=1, batch_size=4,"
            f" adapter='lora:rank=2').to({str(tmp_path / number)!r})"
        )
        environment = {**os.environ, "PYTHONHASHSEED": number}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        folder = tmp_path / number / "model"
        saved.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert saved[0] == saved[1]
