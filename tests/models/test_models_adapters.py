"""Adapter folders of every kind, loaded by their reference."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import ARCHITECTURES, Architecture, tiny_model
from transformers import AutoModelForCausalLM

from tilth.errors import ModelError
from tilth.models import Sampling, engine, load
from tilth.models.adapters import nf4
from tilth.models.adapters.attach import attach, in_place, merges
from tilth.tune._adapters import adapt, save_adapter
from tilth.tune.adapters import MEMBERS, adapter_settings

TEXTS = ["How much is 2 and 3?", "Sow barley in early spring, when the soil is dry", "a"]


def saved(folder: Path, base: Path, adapter: str, seed: int = 0) -> Path:
    """An adapter folder for `base`, every tensor of it moved away from its start."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    adapted = adapt(model, adapter_settings(adapter), seed=seed, base_name=str(base))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    save_adapter(adapted, folder)
    return folder


def logits(model: torch.nn.Module, ids: list[int], **more: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), **more).logits[0, -len(ids) :]


@pytest.mark.parametrize("kind", [kind for kind in MEMBERS if kind != "full"])
def test_a_reference_loads_every_kind(tmp_path: Path, tiny: Path, kind: str) -> None:
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
    folder = saved(tmp_path / "adapter", tiny, kind)
    apart, tokenizer = load(str(folder), "cpu", merge=False)
    assert isinstance(apart, PeftModel)
    ids = tokenizer(TEXTS[1]).input_ids
    expected = logits(apart, ids)
    base, _ = load(str(tiny), "cpu")
    assert (logits(base, ids) - expected).abs().max() > 1e-3
    for reference in (str(folder), f"{tiny}+{folder}"):
        model, _ = load(reference, "cpu")
        assert not isinstance(model, PeftModel)
        assert torch.allclose(logits(model, ids), expected, atol=2e-5)
        answers = engine(reference, batch_size=3, progress=False)
        short = Sampling(max_new_tokens=8)
        together = [answer.text for answer in answers.complete(TEXTS, short)]
        assert together == [answers.complete([text], short)[0].text for text in TEXTS]
        pairs = [(text, " The answer") for text in TEXTS]
        alone = [answers.score([pair])[0].logprob for pair in pairs]
        assert [s.logprob for s in answers.score(pairs)] == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["prompt:tokens=3", "prefix:tokens=3"])
def test_a_prompt_is_read_as_peft_reads_it(
    tmp_path: Path, models: dict[Architecture, Path], name: Architecture, kind: str
) -> None:
    folder = saved(tmp_path / "adapter", models[name], kind)
    apart, _ = load(str(folder), "cpu", merge=False)
    model, _ = load(str(folder), "cpu")
    ids = [7, 30, 2, 99, 5]
    assert torch.allclose(logits(model, ids), logits(apart, ids), atol=2e-5)
    padded = torch.tensor([[0, 0, 0, *ids], [9, 8, 7, *ids]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [1] * 8])
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        out = model(input_ids=padded, attention_mask=mask, position_ids=places)
        assert torch.allclose(out.logits[0, 3:], logits(model, ids), atol=2e-5)
        step = model(
            input_ids=torch.tensor([[4], [4]]),
            attention_mask=torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1),
            position_ids=places[:, -1:] + 1,
            past_key_values=out.past_key_values,
        )
    assert torch.allclose(step.logits[0, 0], logits(model, [*ids, 4])[-1], atol=2e-5)


def test_the_window_has_room_for_the_prompt(tmp_path: Path, tiny: Path) -> None:
    folder = saved(tmp_path / "adapter", tiny, "prompt:tokens=7")
    before = load(str(tiny), "cpu")[0].config.max_position_embeddings
    assert load(str(folder), "cpu")[0].config.max_position_embeddings == before - 7


def test_adapters_stand_on_each_other_where_the_lower_one_merges(
    tmp_path: Path, tiny: Path
) -> None:
    bitfit = saved(tmp_path / "bitfit", tiny, "bitfit")
    branch = saved(tmp_path / "branch", tiny, "adaptformer", seed=1)
    assert merges(bitfit)
    assert not merges(branch)
    model, _ = load(f"{tiny}+{bitfit}+{branch}", "cpu")
    below, _ = load(f"{tiny}+{bitfit}", "cpu")
    ids = [5, 6, 7, 8]
    expected = logits(attach(below, branch), ids)
    assert torch.allclose(logits(model, ids), expected, atol=1e-6)
    with pytest.raises(ModelError, match="cannot be added to the weights") as caught:
        load(f"{tiny}+{branch}+{bitfit}", "cpu")
    assert "last" in caught.value.fix


def test_a_merged_model_is_whole_with_its_new_parts(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "llama", tied=True)
    ids = [5, 6, 7, 8]
    for adapter in ("bitfit", "head"):
        merged = in_place(
            attach(
                AutoModelForCausalLM.from_pretrained(base),
                saved(tmp_path / adapter, base, adapter),
            )
        )
        merged.save_pretrained(tmp_path / f"{adapter}-whole")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / f"{adapter}-whole")
        assert torch.equal(logits(again, ids), logits(merged, ids))
    assert not again.config.tie_word_embeddings


@pytest.mark.parametrize("kind", ["bitfit", "adaptformer", "prefix"])
def test_another_base_is_told(tmp_path: Path, tiny: Path, kind: str) -> None:
    other = tiny_model(tmp_path / "other", "llama", hidden=16)
    folder = saved(tmp_path / "adapter", tiny, kind)
    with pytest.raises(ModelError, match="another base model"):
        load(f"{other}+{folder}", "cpu")


def test_rounding_is_what_the_note_says(tmp_path: Path, tiny: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = saved(tmp_path / "adapter", tiny, "qlora:double_quantization=false")
    assert nf4.note_of(folder) is False
    for note in ("{", "[]", '{"bits": 4, "type": "fp4", "double": true}'):
        damaged = tmp_path / "damaged"
        shutil.copytree(folder, damaged, dirs_exist_ok=True)
        (damaged / nf4.NOTE).write_text(note)
        with pytest.raises(ModelError, match="round"):
            load(f"{tiny}+{damaged}", "cpu")


def test_without_bitsandbytes_the_way_out_is_named(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match="needs bitsandbytes") as caught:
        saved(tmp_path / "adapter", tiny, "qlora")
    assert "pip install" in caught.value.fix


def test_ours_are_told_apart_by_their_configuration(tmp_path: Path, tiny: Path) -> None:
    for kind in ("bitfit", "adaptformer"):
        folder = saved(tmp_path / kind, tiny, kind)
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["peft_type"] == f"TILTH_{kind.upper()}"
        assert config["base_model_name_or_path"] == str(tiny)
