"""Loading: four architectures, adapters, and every folder that must not load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_adapter, tiny_model

from tilth.errors import ModelError
from tilth.models import load, load_tokenizer, reference
from tilth.models.load import base_name

IDS = torch.tensor([[40, 50, 60, 70, 80]])


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_architecture_loads(tmp_path, architecture, tied):
    folder = tiny_model(tmp_path / "model", architecture, tied=tied, chat_template=False)
    model, tokenizer = load(str(folder), "cpu")
    assert not model.training
    assert model.dtype == torch.float32
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert len(tokenizer) == model.config.vocab_size
    assert load(str(folder), "cpu", "bfloat16")[0].dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_merge_and_load_with_plain_peft(tmp_path, models, architecture):
    from peft import AutoPeftModelForCausalLM

    base = models[architecture]
    assert base_name(str(base)) == str(base)
    folder = tiny_adapter(tmp_path / "adapter", base_name(str(base)))
    with torch.no_grad():
        merged = load(str(folder), "cpu")[0](IDS).logits
        apart = load(str(folder), "cpu", merge=False)[0](IDS).logits
        plain = AutoPeftModelForCausalLM.from_pretrained(str(folder))(IDS).logits
        bare = load(str(base), "cpu")[0](IDS).logits
    torch.testing.assert_close(merged, apart, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged, plain, atol=1e-4, rtol=1e-4)
    assert (merged - bare).abs().max() > 0.1


def test_an_adapter_may_name_a_seedling(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(reference, "SEEDLINGS", tmp_path / "seedlings")
    copy(tiny, tmp_path / "seedlings" / "small")
    folder = tiny_adapter(tmp_path / "adapter", tiny)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "seedling:small"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model, tokenizer = load(str(folder), "cpu")
    assert tokenizer.chat_template
    assert model(IDS).logits.shape == (1, 5, len(tokenizer))


def test_the_tokenizer_of_the_adapter_counts(tmp_path, tiny):
    folder = tiny_adapter(tmp_path / "adapter", tiny)
    changed = load_tokenizer(str(tiny))
    changed.chat_template = "{{ messages[0].content }}"
    changed.save_pretrained(folder)
    assert load_tokenizer(str(folder)).chat_template == changed.chat_template


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def remove(*names: str):
    def act(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return act


def change_config(**values: object):
    def act(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return act


def damage(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def a_missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (only_pickle, "pytorch_model.bin is not safetensors"),
        (remove("model.safetensors"), "the weights are missing"),
        (remove("config.json"), "config.json is missing"),
        (remove("tokenizer.json"), "looked for tokenizer.json, tokenizer.model"),
        (damage("config.json", b"{"), "not valid JSON"),
        (damage("config.json", b"{}"), "model_type"),
        (damage("model.safetensors", b"\x08\0\0\0"), "cannot be loaded"),
        (damage("tokenizer.json", b"{"), "tokenizer cannot be loaded"),
        (a_missing_shard, "weight files are missing"),
        (change_config(architectures=["BertModel"]), "does not write text from left to right"),
        (change_config(model_type="unheard_of"), "cannot be loaded"),
        (change_config(num_hidden_layers=3), "are not in the file"),
        (change_config(hidden_size=64), "cannot be loaded"),
        (
            change_config(model_type="own", auto_map={"AutoModelForCausalLM": "own.Model"}),
            "cannot be loaded",
        ),
    ],
)
def test_what_must_not_load(tmp_path, tiny, break_it, problem):
    folder = copy(tiny, tmp_path / "model")
    break_it(folder)
    with pytest.raises(ModelError) as caught:
        load(str(folder), "cpu")
    assert problem in caught.value.problem
    assert caught.value.where
    assert len(str(caught.value)) < 1000


def test_a_tokenizer_larger_than_the_model(tmp_path, tiny):
    folder = copy(tiny, tmp_path / "model")
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="embeds only"):
        load(str(folder), "cpu")


@pytest.mark.parametrize("case", ["width", "depth", "architecture", "pickle", "damage"])
def test_adapters_that_do_not_fit(tmp_path, tiny, models, case):
    base = tiny_model(tmp_path / "other", "llama", hidden=64 if case == "width" else 32, layers=3)
    folder = tiny_adapter(tmp_path / "adapter", models["gpt2"] if case == "architecture" else base)
    weights = folder / "adapter_model.safetensors"
    if case == "pickle":
        weights.rename(folder / "adapter_model.bin")
    if case == "damage":
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError) as caught:
        load(f"{tiny}+{folder}", "cpu")
    expected = {"pickle": "not safetensors", "damage": "damaged"}
    assert expected.get(case, "another base") in caught.value.problem


def test_endpoints_and_absent_hub_models(tiny, tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded as a local model"):
        load("openai:m@http://h/v1", "cpu")
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer("openai:m@http://h/v1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        load("owner/not-there", "cpu")
    with pytest.raises(ModelError, match="cannot name its base"):
        base_name(str(tiny_adapter(tmp_path / "adapter", tiny)))
    with pytest.raises(ModelError, match="device"):
        load(str(tiny), "cuda:99")
