"""Response and single-task tuning: what is trained on, in which tags, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_model, tiny_tokenizer
from transformers import AutoTokenizer

from tilth.artefacts import Artefact
from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.errors import DataError, ModelError
from tilth.models import encode_chat
from tilth.models.tags import TEMPLATES, require_tags, with_tags
from tilth.tune import SFT, ResponseOnly, SingleTask, Tags
from tilth.tune._implicit import EPOCHS

PAIRS = [
    ("How much is 2 and 3?", "2 + 3 = 5. The answer is 5."),
    ("Which pest troubles the variety Amber Gate?", "The aphid."),
    ("Sort the words pear, apple, fig.", "apple, fig, pear"),
    ("Name a crop that grows tall.", "Rye."),
]
FAST: dict[str, Any] = {"max_steps": 3, "batch_size": 2, "learning_rate": 1e-3}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [Example.pair(q, a) for q, a in PAIRS])
    return path


def quiet(line: str) -> None:
    """Says nothing."""


# --- tags -----------------------------------------------------------------------------------


def test_the_papers_format_to_the_letter() -> None:
    tokenizer = with_tags(tiny_tokenizer("gpt2"), "paper")
    turns: Any = [
        {"role": "user", "content": "Name a crop."},
        {"role": "assistant", "content": "Rye."},
        {"role": "user", "content": "One more."},
        {"role": "assistant", "content": "Oats."},
    ]
    row = encode_chat(tokenizer, turns)
    assert tokenizer.decode(row.input_ids) == (
        "<|user|>\nName a crop.\n<|assistant|>\nRye.<|endoftext|>\n"
        "<|user|>\nOne more.\n<|assistant|>\nOats.<|endoftext|>"
    )
    learnt = [i for i, target in zip(row.input_ids, row.assistant_mask, strict=True) if target]
    assert tokenizer.decode(learnt) == "Rye.<|endoftext|>Oats.<|endoftext|>"
    assert row.answers == ("Rye.<|endoftext|>", "Oats.<|endoftext|>")


def test_the_tags_may_mean_nothing() -> None:
    tokenizer = with_tags(tiny_tokenizer("gpt2"), "letters")
    turns: Any = [{"role": "user", "content": "Name a crop."}]
    ids = encode_chat(tokenizer, turns, add_generation_prompt=True).input_ids
    assert tokenizer.decode(ids) == "<|A|>\nName a crop.\n<|B|>\n"


def test_text_begins_with_its_token_where_there_is_one() -> None:
    tokenizer = tiny_tokenizer("qwen2")
    tokenizer.bos_token = "<|endoftext|>"
    with_tags(tokenizer, "paper")
    turns: Any = [{"role": "user", "content": "x"}]
    assert tokenizer.decode(encode_chat(tokenizer, turns).input_ids).startswith("<|endoftext|><|us")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{% for m in messages %}{{ m.content }}\n{% endfor %}",
            "writes no assistant tag before an answer",
        ),
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}<bot>{% endif %}",
            "is not the one before a trained answer",
        ),
    ],
)
def test_a_template_without_assistant_tag_says_what_was_expected(
    template: str, problem: str
) -> None:
    tokenizer = tiny_tokenizer("gpt2")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=problem) as caught:
        require_tags(tokenizer)
    assert r"BOS<|user|>\n{instruction}\n<|assistant|>\n{response}EOS" in caught.value.fix


def test_missing_end_targets_are_an_error() -> None:
    tokenizer = tiny_tokenizer("gpt2")
    tokenizer.eos_token = None
    tokenizer.chat_template = TEMPLATES["paper"]
    with pytest.raises(ModelError, match="would never learn to stop"):
        require_tags(tokenizer)


@pytest.mark.parametrize("tags", ["paper", "letters", "own"])
def test_a_tagged_base_has_the_bases_weights(tags: Any, tiny: Path, tmp_path: Path) -> None:
    made = Tags(model=str(tiny), tags=tags).to(tmp_path / "base", say=quiet)
    weights = "model.safetensors"
    assert (made.folder / "model" / weights).read_bytes() == (tiny / weights).read_bytes()
    template = AutoTokenizer.from_pretrained(made.folder / "model").chat_template
    assert template == TEMPLATES.get(tags, AutoTokenizer.from_pretrained(tiny).chat_template)


# --- what is trained on -----------------------------------------------------------------------


def test_response_tuning_is_tuning_on_blank_instructions(
    tiny: Path, rows: Path, tmp_path: Path
) -> None:
    """The same weights as plain tuning on rows whose instructions are blank, in the same tags."""
    blank = tmp_path / "blank.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for line in lines:
        line["messages"][0]["content"] = ""
        line["meta"]["blank_user_turns"] = True
    blank.write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole: dict[str, Any] = {**FAST, "model": str(tiny), "batch_size": len(PAIRS)}
    ours = ResponseOnly(data=str(rows), tags="own", **whole).to(tmp_path / "ours", say=quiet)
    plain = SFT(data=str(blank), adapter="full", **whole).to(tmp_path / "plain", say=quiet)
    for name in ("target_tokens", "tokens", "rows_trained"):
        assert ours.manifest.metrics[name] == plain.manifest.metrics[name]
    a, b = (load_file(made.path("model/model.safetensors")) for made in (ours, plain))
    for name in a:  # the rows of a batch stand in another order, so the last bits differ
        assert torch.allclose(a[name], b[name], atol=1e-5), name
    start = load_file(tiny / "model.safetensors")
    assert any(not torch.equal(a[name], start[name]) for name in a)


def test_the_tuned_model_keeps_its_tags_and_its_end(tiny: Path, rows: Path, tmp_path: Path) -> None:
    made = ResponseOnly(model=str(tiny), data=str(rows), **FAST).to(tmp_path / "t", say=quiet)
    folder = made.folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == TEMPLATES["paper"]
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.eos_token_id in stops
    assert "tune.response_only" in (folder / "README.md").read_text()


def test_a_single_task_keeps_the_rows_it_was_trained_on(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "poems.jsonl"
    poems = [{"title": f"T{i}" if i else "", "content": f"line {i}"} for i in range(6)]
    path.write_text("".join(json.dumps(p) + "\n" for p in poems))
    made = SingleTask(model=str(tiny), data=str(path), task="poems", **FAST).to(
        tmp_path / "t", say=quiet
    )
    assert [r.prompt for r in read(made.folder)] == [
        f"Write a poem called T{i}" for i in range(1, 6)
    ]
    assert made.manifest.metrics["rows_skipped"] == {"no title": 1}
    (line,) = made.path("rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "no title"
    assert Artefact.open(made.folder).digest == made.digest


# --- constants --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        ("llama-scripts", (5, 1e-5, "linear", 0.03)),
        ("llama-paper", (5, 1e-5, "cosine", 0.1)),
        ("olmo-scripts", (7, 3e-6, "linear", 0.03)),
        ("olmo-paper", (7, 3e-6, "cosine", 0.1)),
    ],
)
def test_paper_and_scripts_are_both_there(constants: str, expected: tuple[Any, ...]) -> None:
    method = ResponseOnly(model="m", data="d", constants=constants)  # type: ignore[arg-type]
    found = (method.epochs, method.learning_rate, method.schedule, method.warmup_ratio)
    assert found == expected
    assert ResponseOnly(**method.model_dump()) == method
    given = ResponseOnly(model="m", data="d", constants=constants, warmup_ratio=0.5)  # type: ignore[arg-type]
    assert given.warmup_ratio == 0.5, "what is given stands"
    assert method.batch_size == 64
    assert method.adapter.kind == "full"
    assert method.max_length == 2048


def test_each_task_has_the_epochs_of_its_script() -> None:
    for base, table in EPOCHS.items():
        for task in ("gsm8k", "mbpp", "chess", "poems", "recipes"):
            constants: Any = f"{base}-scripts"
            method = SingleTask(model="m", data="d", task=task, constants=constants)  # type: ignore[arg-type]
            assert method.epochs == table[task]
    assert SingleTask(model="m", data="d").epochs == 5
    assert list(EPOCHS["llama"].values()) == [15, 5, 7, 15, 15, 15, 20]
    assert list(EPOCHS["olmo"].values()) == [15, 7, 7, 7, 20, 5, 20]


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(ValueError, match="'llama-scripts', 'llama-paper'"):
        ResponseOnly(model="m", data="d", constants="llama")  # type: ignore[arg-type]


# --- bad input --------------------------------------------------------------------------------


def test_empty_responses_are_dropped_with_a_count(tiny: Path, rows: Path, tmp_path: Path) -> None:
    with rows.open("a") as file:
        file.write(json.dumps({"messages": Example.pair("q", "  \n").messages}) + "\n")
    made = ResponseOnly(model=str(tiny), data=str(rows), max_rejected=0.5, **FAST).to(
        tmp_path / "t", say=quiet
    )
    assert made.manifest.metrics["rows_rejected"] == 1
    (line,) = made.path("rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "empty assistant turn"


def test_rows_cut_before_their_response_are_dropped_with_a_count(
    tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    long = "The farmer has 12 sheep. " * 30
    pairs = [*PAIRS, (long, "Rye."), ("Name a crop.", long)]
    write_rows(path, [Example.pair(q, a) for q, a in pairs])
    made: dict[str, dict[str, Any]] = {}
    for long_rows in ("cut", "set_aside"):
        said: list[str] = []
        method = SingleTask(
            model=str(tiny),
            data=str(path),
            max_length=64,
            max_rejected=0.5,
            long_rows=long_rows,  # type: ignore[arg-type]
            **FAST,
        )
        made[long_rows] = method.to(tmp_path / long_rows, say=said.append).manifest.metrics
    cut, aside = made["cut"], made["set_aside"]
    assert (cut["rows_cut"], cut["rows_cut_before_answer"], cut["rows_trained"]) == (2, 1, 5)
    assert (aside["rows_cut"], aside["rows_rejected"], aside["rows_trained"]) == (0, 2, 4)
    reasons = (tmp_path / "cut" / "rejected.jsonl").read_text()
    assert "cut at 64 tokens, before the first response token" in reasons


def test_a_blank_instruction_needs_no_special_row(tmp_path: Path) -> None:
    """Its tags stay even where the tokenizer has no template of its own."""
    folder = tiny_model(tmp_path / "m", "gpt2", chat_template=False)
    path = tmp_path / "rows.jsonl"
    write_rows(path, [Example.pair(q, a) for q, a in PAIRS])
    made = ResponseOnly(model=str(folder), data=str(path), tags="own", **FAST).to(
        tmp_path / "t", say=quiet
    )
    assert made.manifest.metrics["rows_trained"] == len(PAIRS)


def test_all_rows_unusable_stops_the_run(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [Example.pair(q, a) for q, a in PAIRS])
    with pytest.raises(DataError, match="cannot be trained on"):
        SingleTask(model=str(tiny), data=str(path), max_length=4, **FAST).to(
            tmp_path / "t", say=quiet
        )
