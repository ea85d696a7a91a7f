"""The rule adapter: scores by hand, tokens in several vocabularies, use by reference."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES, Architecture, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tilth.decode._checks import CompositionWarning
from tilth.decode._rule_scores import RuleProcessor, RuleScores
from tilth.decode.engine import open_composed
from tilth.decode.rules import Rule, RuleSet, read_rules, resolve_rules
from tilth.errors import ModelError, RecipeError
from tilth.models import Sampling, engine
from tilth.models.generation import end_ids
from tilth.models.reference import RULE_SETS

ASKED = [[{"role": "user", "content": text}] for text in ("2 and 3?", "Which pest is it, then?")]


def rule_file(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return path


PLAIN = """\
name: test
rules:
  - {kind: eos_ramp, weight: 15, range: 250}
  - {kind: token_bias, weight: -4, strings: ["a", " the"]}
  - {kind: seen_penalty, weight: -1.5}
"""


def test_the_published_scores_by_hand() -> None:
    tokenizer = tiny_tokenizer("llama")
    rules = RuleSet(
        rules=(
            Rule(kind="eos_ramp", weight=15, range=250),
            Rule(kind="token_bias", weight=-4, tokens=(30,)),
            Rule(kind="token_bias", weight=1, tokens=(31,)),
            Rule(kind="seen_penalty", weight=-1.5),
        )
    )
    resolved = resolve_rules(rules, tokenizer, [0])
    state = RuleScores(resolved, 40, [[7, 7, 30], []])
    first = state.scores()
    assert first[0, 0] == 0
    assert first[0, 7] == -1.5
    assert first[0, 30] == -5.5
    assert first[0, 31] == 1
    assert first[1, 7] == 0
    assert first[1, 30] == -4
    for token in (9, 9, 31):
        state.advance(torch.tensor([token, 5]))
    later = state.scores()
    assert later[0, 9] == -1.5, "once per type, not per occurrence"
    assert later[0, 31] == -0.5
    assert later[0, 0] == pytest.approx(15 * 3 / 250)
    assert later[1, 5] == -1.5
    assert later[1, 7] == 0


@pytest.mark.parametrize(("hole", "after"), [(False, 15.0), (True, 0.0)])
def test_the_ramp_stays_at_its_top_or_has_the_published_hole(hole: bool, after: float) -> None:
    rules = RuleSet(rules=(Rule(kind="eos_ramp", weight=15, range=250),), official_hole=hole)
    resolved = resolve_rules(rules, tiny_tokenizer("llama"), [0])
    at = [
        RuleScores(resolved, 8, [[]], [[1] * t]).scores()[0, 0].item() for t in (0, 249, 250, 900)
    ]
    assert at == pytest.approx([0, 15 * 249 / 250, after, after])


def test_ahead_is_what_stepping_gives_and_leaves_the_state() -> None:
    rules = read_rules(RULE_SETS / "published.yaml")
    resolved = resolve_rules(rules, tiny_tokenizer("llama"), [0, 5])
    tokens_BT = torch.tensor([[3, 9, 9], [12, 3, 0]])
    state, stepped = (RuleScores(resolved, 400, [[1, 2], [3]]) for _ in range(2))
    ahead = state.ahead(tokens_BT)
    for step in range(3):
        assert torch.equal(ahead[:, step], stepped.scores())
        stepped.advance(tokens_BT[:, step])
    assert torch.equal(ahead[:, 3], stepped.scores())
    assert torch.equal(state.scores(), ahead[:, 0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_texts_become_tokens_of_every_vocabulary(architecture: Architecture) -> None:
    tokenizer = tiny_tokenizer(architecture)
    texts = ("<", " t", "\n", "!", "zebra crossing")
    rules = RuleSet(rules=(Rule(kind="token_bias", weight=1, strings=texts),))
    rows = resolve_rules(rules, tokenizer, [0]).rows
    for row in rows[:4]:
        assert row.token is not None, row
        assert tokenizer.decode([row.token]) == row.written
    assert rows[4].token is None
    assert "zebra crossing" in resolve_rules(rules, tokenizer, [0]).table()[4][2]


def test_strict_refuses_a_text_that_is_no_token() -> None:
    rules = RuleSet(rules=(Rule(kind="token_bias", weight=1, strings=("zebra crossing",)),))
    with pytest.raises(ModelError, match="'zebra crossing'"):
        resolve_rules(rules, tiny_tokenizer("llama"), [0], strict=True)


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    rules = RuleSet(rules=(Rule(kind="token_bias", weight=1, tokens=(29966,)),))
    with pytest.raises(ModelError, match="29966 is outside"):
        resolve_rules(rules, tiny_tokenizer("llama"), [0])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("rules: []", "rules"),
        ("rules: [{kind: eos_ramp, weight: 15}]", "needs a range"),
        ("rules: [{kind: token_bias, weight: 1}]", "needs strings or tokens"),
        ("rules: [{kind: seen_penalty, weight: .nan}]", "weight"),
        ("rules: [{kind: seen_penalty, wieght: 1}]", "wieght: there is no such key(.|\n)*'weight'"),
        ("rules: [{kind: eos_rmap, weight: 1}]", "did you mean 'eos_ramp'"),
        ("scope: trun\nrules: [{kind: seen_penalty, weight: 1}]", "did you mean 'turn'"),
    ],
)
def test_a_rule_file_that_says_nonsense(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=named):
        read_rules(rule_file(tmp_path, text))


def test_the_published_set_holds_the_three_rules() -> None:
    rules = read_rules(RULE_SETS / "published.yaml")
    kinds = [rule.kind for rule in rules.rules]
    assert kinds.count("eos_ramp") == kinds.count("seen_penalty") == 1
    assert sum(len(rule.strings) for rule in rules.rules) == 15
    assert rules.scope == "turn"


def by_hand(folder: Path, rules: RuleSet, turns: list, scope: str) -> list[int]:
    """Greedy choice by full passes without a cache, written out."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    from tilth.models.chat import chat_format

    form = chat_format(tokenizer)
    ends = form.stop_ids | end_ids(model, tokenizer)
    prompt = form.encode(turns, add_generation_prompt=True).input_ids
    bias = {
        row.token: row.weight
        for row in resolve_rules(rules, tokenizer, ends).rows
        if row.kind == "token_bias"
    }
    new: list[int] = []
    while len(new) < 12:
        logits = model(torch.tensor([prompt + new])).logits[0, -1]
        for token, weight in bias.items():
            logits[token] += weight
        for token in {*(prompt if scope == "turn" else ()), *new} - ends:
            logits[token] -= 1.5
        for end in ends:
            logits[end] += 15 * len(new) / 250
        new.append(int(logits.argmax()))
        if new[-1] in ends:
            break
    return new


@pytest.mark.parametrize("scope", ["turn", "response"])
def test_by_reference_it_is_what_hand_written_rules_choose(
    scope: str, tiny: Path, tmp_path: Path
) -> None:
    path = rule_file(tmp_path, PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompositionWarning)
        model = engine(f"rules:base={tiny},rules={path},scope={scope}", batch_size=2)
    answers = model.chat(ASKED, Sampling(max_new_tokens=12))
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for turns, answer in zip(ASKED, answers, strict=True):
        expected = by_hand(tiny, read_rules(path), turns, scope)
        assert answer.new_tokens == len(expected)
        said = tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.text.strip() == said.strip()


def test_the_turn_begins_with_the_last_user(tiny: Path) -> None:
    model = open_composed(f"rules:base={tiny},rules=published")
    lead = model.ensemble.lead
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "second"},
    ]
    turn = lead.turn(turns, lead.chat(turns))
    assert lead.tokenizer.decode(turn).count("<|user|>") == 1
    assert "second" in lead.tokenizer.decode(turn)
    assert "first" not in lead.tokenizer.decode(turn)


def test_rules_change_scores_and_the_loss_of_a_token_is_seen(tiny: Path, tmp_path: Path) -> None:
    pair = ("A field of rye", " ripens")
    (plain,) = engine(str(tiny)).score([pair])
    whole = AutoTokenizer.from_pretrained(tiny)("A field of rye ripens").input_ids
    first = whole[-plain.tokens]
    path = rule_file(tmp_path, f"rules: [{{kind: token_bias, weight: -30, tokens: [{first}]}}]")
    (ruled,) = engine(f"rules:base={tiny},rules={path}").score([pair])
    assert ruled.logprob == pytest.approx(plain.logprob - 30, abs=1)


def test_as_a_logits_processor_a_batch_is_its_rows(tiny: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny, padding_side="left")
    rules = read_rules(rule_file(tmp_path, PLAIN))
    resolved = resolve_rules(rules, tokenizer, end_ids(model, tokenizer))
    texts = ["Sow barley in early spring", "2"]
    both = tokenizer(texts, return_tensors="pt", padding=True)

    def written(batch: dict) -> list[list[int]]:
        processor = RuleProcessor(resolved, tokenizer, batch["input_ids"].shape[1])
        made = model.generate(
            **batch, logits_processor=[processor], max_new_tokens=8, do_sample=False
        )
        return made[:, batch["input_ids"].shape[1] :].tolist()

    alone = [written(tokenizer([text], return_tensors="pt"))[0] for text in texts]
    together = [row[: len(own)] for row, own in zip(written(both), alone, strict=True)]
    assert together == alone
