"""Answers to files and to people: the method, `tilth decode`, `tilth chat`, and any evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilth.cli import main
from tilth.data.example import Example
from tilth.decode.answer import Answer
from tilth.decode.prompts import read_prompts
from tilth.errors import DataError
from tilth.evaluate.exams import Exams
from tilth.models import Sampling, engine
from tilth.recipe import Recipe
from tilth.validate import validate


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    pairs = [("2 and 3?", "5"), ("Which pest?", "The aphid.")]
    path.write_text("".join(json.dumps(Example.pair(q, a).as_dict()) + "\n" for q, a in pairs))
    return path


def test_every_prompt_gets_the_models_answer(rows: Path, eft: str, tmp_path: Path) -> None:
    made = Answer(prompts=str(rows), model=eft, max_new_tokens=5).to(tmp_path / "said")
    said = [json.loads(line) for line in made.path("rows.jsonl").read_text().splitlines()]
    asked = [row["messages"][:-1] for row in said]
    expected = engine(eft).chat(asked, Sampling(5))
    assert [row["messages"][-1]["content"] for row in said] == [a.text for a in expected]
    assert said[0]["meta"]["replaced"] == "5"
    assert said[0]["meta"]["model"] == eft


def test_a_composed_model_sits_an_exam_and_its_parts_are_in_the_key(
    eft: str, family: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"skills": ["history"], "per_level": 1, "max_new_tokens": 3}
    first = Exams(model=eft, **settings).to(tmp_path / "a")
    other = Exams(model=f"{eft},weight=0.5", **settings).to(tmp_path / "b")
    digests = {artefact.manifest.inputs["model"]["digest"] for artefact in (first, other)}
    assert len(digests) == 2
    assert 0 <= first.manifest.metrics["score"] <= 1


def test_a_recipe_combines_what_its_steps_made(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: combined\nmodel: seedling:small\ndata: rows.jsonl\nsteps:\n"
        "  - {id: tuned, do: tune.sft, with: {model: '${model}', data: '${data}'}}\n"
        "  - id: said\n    do: decode.answer\n    with:\n      prompts: ${data}\n      model: >-\n"
        "        eft:base=seedling:large,expert=${steps.tuned},anti=seedling:small,weight=0.5\n"
    )
    assert validate(Recipe.read(path))
    path.write_text(path.read_text().replace("weight=0.5", "wieght=0.5"))
    with pytest.raises(Exception, match="wieght"):
        validate(Recipe.read(path))


def test_the_command_answers_a_prompt_and_a_file(
    eft: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "2 and 3?"}\n{"instruction": "Sort", "input": "pear, fig"}\n')
    out = tmp_path / "said.jsonl"
    words = ["decode", "--model", eft, "--prompt", "x", "--max-new-tokens", "4"]
    assert main([*words, "--prompts", str(prompts), "--out", str(out)]) == 0
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prompt"] for row in said] == ["x", "2 and 3?", "Sort\n\npear, fig"]
    assert main(words) == 0
    assert said[0]["output"].strip() in capsys.readouterr().out
    assert main(["decode", "--model", eft]) == 1
    assert "nothing to answer" in capsys.readouterr().err


def test_the_command_explains_a_reference(
    tiny: Path, eft: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decode", "--model", eft, "--explain"]) == 0
    told = capsys.readouterr().out
    assert "computed: base, expert, anti; models loaded: 2" in told
    assert "not computed" not in told
    assert "expert (lead)" in told
    assert "ends with: <|endoftext|> <|end|>" in told
    ref = f"rules:base={tiny},rules=published"
    assert main(["decode", "--model", ref, "--explain"]) == 0
    printed = capsys.readouterr()
    assert "eos_ramp" in printed.out
    assert "skipped" in printed.out
    assert printed.out.count("note: these texts of the rules are no single token") == 1
    assert "note" not in printed.err, "said once"
    ref = f"eft:base={tiny},expert={tiny},anti={tiny}"
    assert main(["decode", "--model", ref, "--explain"]) == 0
    assert "not computed apart: base, anti" in capsys.readouterr().out


def test_a_warning_is_a_note_without_the_line_of_code(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", "x", "--max-new-tokens", "2"]
    assert main(["decode", "--model", f"rules:base={tiny},rules=published", *words]) == 0
    said = capsys.readouterr().err
    assert "note: these texts of the rules are no single token" in said
    assert ".py" not in said
    assert "Warning" not in said


def test_alone_the_command_lists_its_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode"]) == 0
    assert "answer" in capsys.readouterr().out


@pytest.mark.parametrize("composed", [False, True])
def test_chat_says_what_the_engine_says(
    composed: bool,
    tiny: Path,
    eft: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ref = eft if composed else str(tiny)
    lines = iter(["2 and 3?", "", "/clear", "Why?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main(["chat", ref, "--max-new-tokens", "4"]) == 0
    told = capsys.readouterr().out
    for text in ("2 and 3?", "Why?"):
        (said,) = engine(ref).chat([[{"role": "user", "content": text}]], Sampling(4))
        assert said.text in told


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_a_chat_goes_on_after_a_question_that_is_too_long(
    end: type[BaseException],
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = iter(["barley " * 400, "2 and 3?"])

    def typed(prompt: str) -> str:
        for line in lines:
            return line
        raise end

    monkeypatch.setattr("builtins.input", typed)
    assert main(["chat", str(tiny), "--max-new-tokens", "4"]) == 0
    told = capsys.readouterr()
    assert "reads at most 256" in told.err
    assert "/clear begins anew" in told.err
    (said,) = engine(str(tiny)).chat([[{"role": "user", "content": "2 and 3?"}]], Sampling(4))
    assert said.text in told.out


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no prompt"),
        ('{"prompt": 3}\n', "line 1"),
        ('{"prompt": "a"}\n{oops\n', "line 2"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}\n', "none is the user's"),
    ],
)
def test_a_bad_line_of_prompts_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=named):
        read_prompts(path)


def test_prompts_are_read_in_every_form(tmp_path: Path) -> None:
    plain = tmp_path / "prompts.txt"
    plain.write_text("one\n\n two\n")
    assert [turns[-1]["content"] for turns in read_prompts(plain)] == ["one", " two"]
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    rows = tmp_path / "rows.jsonl"
    answered = [*turns, {"role": "assistant", "content": "a"}]
    rows.write_text(json.dumps({"messages": answered}) + "\n")
    assert read_prompts(rows) == [turns]


def test_the_guided_model_reads_the_question_twice(tiny: Path) -> None:
    turns = [{"role": "user", "content": "2 and 3?"}]
    same = engine(f"guidance:model={tiny},scale=1").chat([turns], Sampling(8))
    assert same == engine(str(tiny)).chat([turns], Sampling(8))
    model = engine(f"guidance:model={tiny},scale=3")
    prompts = model.ensemble.prompts(turns)  # type: ignore[attr-defined]
    assert len(prompts) == 2
    assert len(prompts[0]) > len(prompts[1])
    assert model.chat([turns], Sampling(8))


def test_a_contrast_keeps_to_what_the_expert_finds_plausible(family: dict[str, Path]) -> None:
    turns = [{"role": "user", "content": "2 and 3?"}]
    ref = f"contrastive:expert={family['large']},amateur={family['small']},alpha=1"
    strict = engine(ref).chat([turns], Sampling(8))
    own = engine(str(family["large"])).chat([turns], Sampling(8))
    assert strict[0].text == own[0].text, "at alpha 1 only the expert's best token is left"
