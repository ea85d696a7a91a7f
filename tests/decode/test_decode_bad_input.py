"""What is wrong with a composition is said before it answers, with the name of the role."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_adapter, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tilth.decode._checks import CompositionWarning
from tilth.decode.engine import open_composed
from tilth.errors import EngineError, ModelError
from tilth.models import Sampling, engine, load, resolve
from tilth.models.composed import located

ASKED = [[{"role": "user", "content": "2 and 3?"}]]


def test_other_tokenizers_are_named_by_their_first_differing_token(
    models: dict, family: dict[str, Path]
) -> None:
    ref = f"eft:base={models['qwen2']},expert={family['small']},anti={family['other']}"
    named = r"'expert' and 'base' have different tokenizers: token 1 is '<\|pad\|>' to the one"
    with pytest.raises(ModelError, match=named):
        open_composed(ref)


def test_a_longer_vocabulary_is_cut_to_what_all_share(
    family: dict[str, Path], tmp_path: Path
) -> None:
    longer = tmp_path / "longer"
    model = AutoModelForCausalLM.from_pretrained(family["large"])
    tokenizer = AutoTokenizer.from_pretrained(family["large"])
    before = len(tokenizer)
    tokenizer.add_tokens(["<one>", "<two>"])
    model.resize_token_embeddings(before + 64, mean_resizing=False)  # padded beyond the tokens too
    with torch.no_grad():
        model.get_output_embeddings().weight[before:] = 100.0
    model.save_pretrained(longer)
    tokenizer.save_pretrained(longer)
    rest = f"expert={family['small']}+{family['adapter']},anti={family['small']}"
    with pytest.warns(CompositionWarning, match="'base' has 2 tokens more"):
        padded = open_composed(f"eft:base={longer},{rest}")
    assert padded.ensemble.plan.vocabulary == before
    plain = open_composed(f"eft:base={family['large']},{rest}")
    sampling = Sampling(12)
    assert [a.text for a in padded.chat(ASKED, sampling)] == [
        a.text for a in plain.chat(ASKED, sampling)
    ]


def test_an_anti_expert_that_is_not_the_parent_is_warned_of(family: dict[str, Path]) -> None:
    expert = f"{family['small']}+{family['adapter']}"
    with pytest.warns(CompositionWarning, match="'expert' is an adapter of"):
        wrong = open_composed(f"eft:base={family['large']},expert={expert},anti={family['other']}")
    assert wrong.notes
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompositionWarning)
        open_composed(f"eft:base={family['large']},expert={expert},anti={family['small']}")


def test_a_parent_of_another_shape_is_warned_of(family: dict[str, Path]) -> None:
    with pytest.warns(
        CompositionWarning, match="cannot be the parent of 'expert': its hidden_size"
    ):
        open_composed(
            f"eft:base={family['large']},expert={family['small']},anti={family['large']},others=chat"
        )


@pytest.mark.parametrize("role", ["base", "expert", "anti"])
def test_nan_names_the_role(role: str, family: dict[str, Path], tmp_path: Path) -> None:
    parts = {"base": "large", "expert": "other", "anti": "small"}
    damaged = tmp_path / "damaged"
    shutil.copytree(family[parts[role]], damaged)
    tensors = load_file(damaged / "model.safetensors")
    next(v for k, v in tensors.items() if "norm" in k).fill_(float("nan"))
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    refs = {name: family[part] for name, part in parts.items()} | {role: damaged}
    ref = "eft:" + ",".join(f"{name}={path}" for name, path in refs.items())
    with pytest.raises(EngineError, match=f"the role '{role}' computes NaN"):
        open_composed(ref).chat(ASKED)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("weight=1.5", "'weight' is 1.5"),
        ("weight=-1", "'weight' is -1"),
        ("weight=nan,extrapolate=yes", "'weight' is nan"),
        ("weight=1,amplification=2", "'amplification' stands beside"),
        ("amplification=-1", "'amplification' is -1"),
        ("filter=top", "'filter' is 'top'"),
        ("filter=top_p_weights,mass=2", "'mass' is 2"),
        ("draft=-1", "'draft' is '-1'"),
        ("acceptance=rejection", "length of the draft"),
        ("others=both", "'others' is 'both'"),
    ],
)
def test_a_number_out_of_range_names_its_key(more: str, named: str, eft: str) -> None:
    with pytest.raises(ModelError, match=named):
        open_composed(f"{eft},{more}")


def test_lambda_out_of_range(family: dict[str, Path]) -> None:
    parts = ",".join(f"{k}={family['small']}" for k in ("base", "first", "second", "anti"))
    with pytest.raises(ModelError, match=r"'lambda' is 1\.01"):
        open_composed(f"interpolate:{parts},lambda=1.01")


def test_what_was_meant_may_lie_outside(eft: str) -> None:
    assert open_composed(f"{eft},weight=-0.5,extrapolate=yes").chat(ASKED, Sampling(3))


@pytest.mark.parametrize(
    ("ref", "named", "fix"),
    [
        ("etf:base=a,expert=b,anti=c", "kind 'etf'", "'eft'"),
        ("eft:base=seedling:small,expert=seedling:small", "'anti' is missing", "anti="),
        ("eft:base=seedling:small,base=seedling:small", "stands twice", "eft:"),
        ("eft:base=seedling:small,expert=x,anti=y,wieght=1", "no 'wieght'", "'weight'"),
        ("eft:base=,expert=x,anti=y", "has no value", "eft:"),
        ("eft:base=seedling:smal,expert=x,anti=y", "no seedling", "seedling:small"),
        ("rules:base=seedling:small,rules=publisht", "no such rule file", "published"),
        ("eft:", "a kind, a colon", "eft:base=...,expert=...,anti=..."),
        ("eft:base", "a kind, a colon", "eft:base="),
        ("eft(base=a,expert=b,anti=c)", "a kind, a colon", "eft:base="),
        ("EFT:base=a,expert=b,anti=c", "a kind, a colon", "eft:base="),
        ("rules:seedling:small", "a kind, a colon", "rules:base=...,rules=..."),
        ("rules:base=openai:m@http://h/v1,rules=published", "an endpoint", "folder"),
        ("rules:base=guidance:model=seedling:small,rules=published", "a composed", "folder"),
    ],
)
def test_a_malformed_reference_is_told(ref: str, named: str, fix: str) -> None:
    with pytest.raises(ModelError, match=named) as told:
        resolve(ref)
    assert fix in told.value.fix


def test_a_composed_model_cannot_be_loaded_or_embed(eft: str) -> None:
    with pytest.raises(ModelError, match="no weights of its own"):
        load(eft)
    assert "embed" not in engine(eft).can


def test_paths_in_a_reference_are_found_from_a_recipe(tmp_path: Path) -> None:
    ref = "eft:base=seedling:small,expert=seedling:small+mine,anti=seedling:small,weight=0.5"
    moved = located(ref, lambda name: f"{tmp_path}/{name}" if name == "mine" else name)
    assert f"expert=seedling:small+{tmp_path}/mine" in moved
    assert located("a+b", str.upper) == "A+B"


def test_different_end_tokens_are_one_event(family: dict[str, Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(family["large"], base)
    path = base / "generation_config.json"
    config = json.loads(path.read_text())
    tokenizer = AutoTokenizer.from_pretrained(base)
    template = base / "chat_template.jinja"
    config["eos_token_id"] = tokenizer.convert_tokens_to_ids("<|pad|>")
    path.write_text(json.dumps(config))
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["eos_token"] = "<|pad|>"
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    assert template.exists()
    with pytest.warns(CompositionWarning, match="'base' ends its texts with other tokens"):
        model = open_composed(
            f"eft:base={base},expert={family['small']}+{family['adapter']},anti={family['small']}"
        )
    ends = {tokenizer.convert_tokens_to_ids(t) for t in ("<|pad|>", "<|end|>", "<|endoftext|>")}
    assert model.ensemble.chat_ends == ends
    pieces = list(model.stream(ASKED, Sampling(8, temperature=1.0), top=400))
    for piece in pieces:
        for best in piece.top:
            possible = {i for i, value in best if value > -1e3}
            assert len(possible & ends) == 1


def test_an_adapter_of_another_shape_is_refused(family: dict[str, Path], tmp_path: Path) -> None:
    wide = tiny_model(tmp_path / "wide", hidden=64, layers=1)
    adapter = tiny_adapter(tmp_path / "adapter", wide)
    small = family["small"]
    with pytest.raises(ModelError, match="'expert': this adapter was made for another base"):
        open_composed(f"eft:base={family['large']},expert={small}+{adapter},anti={small}")


def test_a_long_prompt_names_the_role_or_is_cut(eft: str) -> None:
    long = [[{"role": "user", "content": "barley " * 400}]]
    with pytest.raises(EngineError, match="the role 'base' reads at most 256"):
        open_composed(eft).chat(long)
    (said,) = open_composed(eft, long_prompts="cut").chat(long, Sampling(4))
    assert 0 < said.new_tokens <= 4
