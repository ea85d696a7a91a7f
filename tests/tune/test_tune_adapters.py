"""What every adapter keeps, on a language model and on a vision transformer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, PreTrainedModel, ViTConfig, ViTForImageClassification

from tilth.cli import main
from tilth.data.example import Example
from tilth.errors import RecipeError
from tilth.models import load
from tilth.models.adapters import nf4
from tilth.models.adapters.attach import attach, in_place
from tilth.tune import adapters
from tilth.tune._adapters import adapt, save_adapter
from tilth.tune.adapter_costs import measure
from tilth.tune.adapters import MEMBERS, adapter_settings
from tilth.tune.sft import SFT

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


# --- training with tune.sft -----------------------------------------------------------------

_STOP: list[int] = []


def _stop(event: str, given: tuple[Any, ...]) -> None:
    """An audit hook: interrupts when the training log is opened for the n-th time."""
    if _STOP and event == "open" and str(given[0]).endswith("metrics.jsonl"):
        _STOP[0] -= 1
        if _STOP[0] == 0:
            _STOP.clear()
            raise KeyboardInterrupt


sys.addaudithook(_stop)


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [Example.pair(f"How much is {i} and 1?", f"It is {i + 1}.") for i in range(24)]
    path.write_text("".join(json.dumps(row.as_dict()) + "\n" for row in rows))
    return str(path)


QUICK = ("qlora", "prompt", "adaptformer")  # the kinds that differ most in what is resumed


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in KINDS]
)
def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    kind: str, tiny: Path, sums: str, tmp_path: Path
) -> None:
    needs(kind)
    method = SFT(
        model=str(tiny),
        data=sums,
        adapter=kind,
        max_steps=6,
        batch_size=4,
        learning_rate=1e-2,
        save_every=2,
        log_every=1,
    )
    whole = method.to(tmp_path / "whole", say=lambda line: None)
    _STOP.append(6)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        method.to(tmp_path / "stopped", say=said.append)
    resumed = method.to(tmp_path / "stopped", say=said.append)
    assert "continuing at step 4 of 6" in said
    assert resumed.manifest.files == whole.manifest.files
    card = whole.path("model/README.md").read_text()
    assert f"an adapter ({kind})" in card


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adapter": "prompt", "batching": "packed"}, "grouped"),
        ({"adapter": "adaptformer:targets=no_such"}, "q_proj"),
        ({"adapter": "bitfit:new=never"}, "no bias"),
    ],
)
def test_what_does_not_go_together_is_told(
    tiny: Path, sums: str, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        SFT(model=str(tiny), data=sums, max_steps=1, **settings).to(tmp_path / "out")
    assert words in str(caught.value)


def test_an_adapter_that_does_not_merge_needs_a_base_of_its_own(
    tiny: Path, sums: str, tmp_path: Path
) -> None:
    bench = Bench("text", tiny)
    for kind, adapter in (("lora", "adaptformer"), ("adaptformer", "lora")):
        save_adapter(bench.adapted(kind), tmp_path / kind)
        with pytest.raises(RecipeError, match="cannot be added to"):
            SFT(model=f"{tiny}+{tmp_path / kind}", data=sums, adapter=adapter).to(tmp_path / "out")


def test_prompts_are_for_texts() -> None:
    with pytest.raises(RecipeError, match="reads none") as caught:
        adapt(tiny_vit(), adapter_settings("prompt"), seed=0, base_name="vit")
    assert "bitfit" in caught.value.fix


# --- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MEMBERS)
def test_every_member_says_where_its_defaults_come_from(kind: str) -> None:
    member = MEMBERS[kind]
    assert "our choice" in (member.__doc__ or "") or "arXiv" in (member.__doc__ or "")
    assert member.learning_rate > 0
    assert str(member()) == kind  # type: ignore[call-arg]
    for name, info in member.model_fields.items():
        assert name == "kind" or info.description


@pytest.mark.parametrize(
    "text",
    ["full", "lora:rank=32,alpha=64.0", "lora:targets=q_proj+v_proj", "bitfit:new=always",
     "qlora:double_quantization=false", "adaptformer:bottleneck=4,learn_scale=true",
     "lora:modules_to_save=lm_head"],
)  # fmt: skip
def test_the_short_form_comes_back(text: str) -> None:
    member = adapter_settings(text)
    assert str(member) == text
    assert adapter_settings(member.model_dump(mode="json")) == member
    assert adapter_settings(member) is member


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("lroa", "did you mean 'lora'"),
        ("lora:rnak=2", "did you mean 'rank'"),
        ("bitfit:rank=2", "no setting 'rank'"),
        ("lora:rank", "not name=value"),
        ({"kind": "lora", "rank": 0}, "greater than or equal to 1"),
        (7, "an adapter is one of"),
    ],
)
def test_a_wrong_setting_names_the_right_one(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        adapter_settings(given)


def test_a_method_takes_every_form() -> None:
    for given in ("lora", {"rank": 16}, {"kind": "lora"}, MEMBERS["lora"]()):  # type: ignore[call-arg]
        assert SFT(model="m", data="d", adapter=given) == SFT(model="m", data="d")
    assert SFT(model="m", data="d", adapter="none").adapter.kind == "full"
    with pytest.raises(ValidationError, match="did you mean 'dora'"):
        SFT(model="m", data="d", adapter="dor")


# --- the table ------------------------------------------------------------------------------


def test_the_table_says_what_does_not_fit(models: dict[str, Path]) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install 'tilth[qlora]'")
    cost = measure(str(models["gpt2"]), "qlora", steps=1, rows=2, length=16, device="cpu")
    assert "no linear layers" in cost.problem


@pytest.mark.slow
def test_the_table_measures(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["tune", "adapters", "--model", str(models["gpt2"]), "--steps", "1", "--rows", "2"]
    assert main([*given, "--length", "16", "--adapter", "bitfit"]) == 0
    model = AutoModelForCausalLM.from_pretrained(models["gpt2"])
    biases = sum(p.numel() for n, p in model.named_parameters() if n.endswith("bias"))
    assert f"{biases:,}" in capsys.readouterr().out


def test_a_missing_package_is_told_with_the_way_out(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    cost = measure(str(tiny), "qlora", steps=1, rows=2, length=16, device="cpu")
    assert "pip install 'tilth[qlora]'" in cost.problem


@pytest.mark.parametrize("kind", ["bitfit", "head"])
def test_from_python_in_three_lines(kind: str, tmp_path: Path) -> None:
    vit = tiny_vit()
    adapted = adapters.adapt(vit, kind, seed=3)
    adapters.save_adapter(adapted, tmp_path / "tuned")
    expected = Bench("images", tmp_path).logits(adapted)
    again = attach(tiny_vit(), tmp_path / "tuned")
    assert torch.equal(Bench("images", tmp_path).logits(again), expected)
    with pytest.raises(ValueError, match="did you mean 'bitfit'"):
        adapters.adapt(tiny_vit(), "bitfitt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "bitfit"])
def test_merged_equals_unmerged_on_a_seedling(kind: str) -> None:
    """Relative to the largest logit: what float32 leaves of sums in another order."""
    base, tokenizer = load("seedling:small", "cpu")
    ids = tokenizer("Question: How much is 2 and 3?\nAnswer: 5", return_tensors="pt").input_ids
    adapted = adapters.adapt(base, kind)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        apart = adapted(input_ids=ids).logits
        merged = in_place(adapted)(input_ids=ids).logits
    assert (merged - apart).abs().max() < 1e-5 * apart.abs().max()


def test_the_table_says_that_there_is_no_such_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "adapters", "--model", "seedling:smal", "--adapter", "bitfit"]) == 1
    assert capsys.readouterr().err == (
        "error: no seedling is called 'smal'\n  where: model reference\n"
        "  fix:   did you mean seedling:small?\n"
    )


def test_a_wrong_adapter_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "sft", "--model", "seedling:small", "--data", "x", "--out", "y"]
    assert main([*words, "--adapter", "lroa"]) == 1
    said = capsys.readouterr().err
    assert said.count("lroa") == 1
    assert "did you mean 'lora'" in said
    assert main([*words, "--schedule", "consine"]) == 1
    assert "did you mean 'cosine'" in capsys.readouterr().err
