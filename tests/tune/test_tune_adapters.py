"""What every adapter keeps, on a language model and on a vision transformer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, ViTConfig, ViTForImageClassification

from tilth.models.adapters import nf4
from tilth.models.adapters.attach import attach, in_place
from tilth.tune._adapters import adapt, save_adapter
from tilth.tune.adapters import MEMBERS, adapter_settings

KINDS = [kind for kind in MEMBERS if kind != "full"]
CASES = [
    (kind, world)
    for kind in KINDS
    for world in ("text", "images")
    if world == "text" or MEMBERS[kind].sees_images
]
MERGING = [(kind, world) for kind, world in CASES if MEMBERS[kind].merges]
RATE = 0.02


def tiny_vit() -> ViTForImageClassification:
    """A random vision transformer: 4 patches of 8 x 8 pixels, 3 classes."""
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ViTForImageClassification(config).eval()


class Bench:
    """A base model of one world, its inputs, and a few steps of training."""

    def __init__(self, world: str, folder: Path) -> None:
        self.world, self.folder = world, folder

    def base(self) -> PreTrainedModel:
        if self.world == "images":
            return tiny_vit()
        return AutoModelForCausalLM.from_pretrained(self.folder).eval()

    def inputs(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        if self.world == "images":
            return {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator)}
        return {"input_ids": torch.randint(0, 300, (3, 12), generator=generator)}

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            out = model.eval()(**self.inputs()).logits
        return out[:, -12:] if self.world == "text" else out

    def adapted(self, kind: str, seed: int = 0, **settings: Any) -> PeftModel:
        settings = {**({"rank": 2} if kind in ("lora", "dora", "qlora") else {}), **settings}
        member = adapter_settings({"kind": kind, **settings})
        return adapt(self.base(), member, seed=seed, base_name=str(self.folder))

    def trained(self, kind: str, seed: int = 0, **settings: Any) -> PeftModel:
        """An adapter after three steps towards random labels."""
        adapted = self.adapted(kind, seed, **settings)
        weights = [p for p in adapted.parameters() if p.requires_grad]
        generator = torch.Generator().manual_seed(seed + 7)
        optimizer = torch.optim.AdamW(weights, lr=RATE)
        for _ in range(3):
            logits = adapted(**self.inputs()).logits.flatten(0, -2)
            labels = torch.randint(0, 3, (len(logits),), generator=generator)
            torch.nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        return adapted


@pytest.fixture
def bench(request: pytest.FixtureRequest, tiny: Path) -> Bench:
    return Bench(request.param, tiny)


def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """The base as QLoRA sees it."""
    nf4.quantize(model, double=True, compute=torch.float32)
    nf4.dequantize(model, torch.float32)
    return model


def needs(kind: str) -> None:
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")


# --- conformance ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "bench"), CASES, indirect=["bench"])
def test_the_base_stays_as_it_is(kind: str, bench: Bench) -> None:
    needs(kind)
    adapted = bench.trained(kind)
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) < (
        0.4 * bench.base().num_parameters()
    )
    if kind == "qlora":
        expected = bench.base()
        nf4.quantize(expected, double=True, compute=torch.float32)
    else:
        expected = bench.base()
    left = adapted.get_base_model() if kind in ("prompt", "prefix") else adapted.unload()
    before, after = expected.state_dict(), left.state_dict()
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize(("kind", "bench"), CASES, indirect=["bench"])
def test_it_starts_as_its_base_and_moves(kind: str, bench: Bench) -> None:
    needs(kind)
    base = bench.logits(bench.base())
    start = bench.logits(bench.adapted(kind))
    member = MEMBERS[kind]
    if member.at_base:
        assert torch.equal(start, base)
    elif kind == "qlora":
        assert torch.allclose(start, bench.logits(rounded(bench.base())), atol=1e-5)
        assert (start - base).abs().max() > 1e-3
    else:
        assert (start - base).abs().max() > 1e-3
    assert (bench.logits(bench.trained(kind)) - start).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "bench"), CASES, indirect=["bench"])
def test_what_is_saved_loads_again(kind: str, bench: Bench, tmp_path: Path) -> None:
    needs(kind)
    adapted = bench.trained(kind)
    save_adapter(adapted, tmp_path / "one")
    save_adapter(adapted, tmp_path / "two")
    names = {p.name for p in (tmp_path / "one").iterdir()}
    note = {nf4.NOTE} if kind == "qlora" else set()
    assert names == {"adapter_config.json", "adapter_model.safetensors"} | note
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = attach(bench.base(), tmp_path / "one")
    assert torch.allclose(bench.logits(again), bench.logits(adapted), atol=1e-6)
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    ours = config["peft_type"].startswith("TILTH_")
    assert ours == (kind in ("bitfit", "adaptformer"))


@pytest.mark.parametrize(("kind", "bench"), MERGING, indirect=["bench"])
def test_merged_equals_unmerged(kind: str, bench: Bench, tmp_path: Path) -> None:
    needs(kind)
    adapted = bench.trained(kind)
    before = bench.logits(adapted)
    merged = in_place(adapted)
    assert not isinstance(merged, PeftModel)
    assert (bench.logits(merged) - before).abs().max() < 1e-5
    merged.save_pretrained(tmp_path / "whole")
    again = type(merged).from_pretrained(tmp_path / "whole")
    assert (bench.logits(again) - before).abs().max() < 1e-5


@pytest.mark.parametrize(("kind", "bench"), CASES, indirect=["bench"])
def test_two_adapters_on_one_model(kind: str, bench: Bench, tmp_path: Path) -> None:
    needs(kind)
    alone = {}
    for seed, name in enumerate(("first", "second")):
        save_adapter(bench.trained(kind, seed), tmp_path / name)
        alone[name] = bench.logits(attach(bench.base(), tmp_path / name))
    assert (alone["first"] - alone["second"]).abs().max() > 1e-4
    both = attach(bench.base(), tmp_path / "first", "first")
    both.load_adapter(str(tmp_path / "second"), "second")
    for name in ("second", "first", "second"):
        both.set_adapter(name)
        assert torch.allclose(bench.logits(both), alone[name], atol=1e-6), name


@pytest.mark.parametrize(("kind", "bench"), CASES, indirect=["bench"])
def test_the_seed_alone_decides_the_first_weights(kind: str, bench: Bench, tmp_path: Path) -> None:
    needs(kind)
    saved = []
    for noise in (3, 4):
        torch.manual_seed(noise)
        folder = tmp_path / str(noise)
        save_adapter(bench.adapted(kind, seed=5), folder)
        saved.append((folder / "adapter_model.safetensors").read_bytes())
    assert saved[0] == saved[1]
