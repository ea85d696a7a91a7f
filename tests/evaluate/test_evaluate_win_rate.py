"""Answers for judges: proxies, seed pairing, both orders, missing verdicts, lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilth.data import write_rows
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.evaluate import Outputs, WinRate
from tilth.evaluate._judging import Verdict, judged, length_controlled
from tilth.evaluate.outputs import training_seed
from tilth.evaluate.proxies import distinct, proxies, repetition
from tilth.evaluate.win_rate import Answered, _rate, paired, read_outputs
from tilth.models import Completion
from tilth.models.local import LocalEngine
from tilth.tune import ResponseOnly, Tags

ASKED = [f"Name crop number {i}." for i in range(4)]


def quiet(line: str) -> None:
    """Says nothing."""


class Scripted:
    """A judge that writes: it says what its script says, in the order of the questions."""

    can = frozenset(("chat",))

    def __init__(self, script: list[str]) -> None:
        self.script = script
        self.asked: list[str] = []

    def chat(self, conversations: list[Any], sampling: Any = None, seeds: Any = None) -> list[Any]:
        self.asked += [c[-1]["content"] for c in conversations]
        return [
            Completion("", "error", 0, 0, "it is down")
            if text == "error"
            else Completion(text, "stop", 0, 1)
            for text in self.script
        ]


def test_both_orders_are_asked_and_averaged() -> None:
    judge = Scripted(["A", "B", "A", "A", "B is better", "A", "no idea", "A", "A", "error"])
    triples = [(q, "ours", "theirs") for q in [*ASKED, "last"]]
    said = judged(judge, triples)  # type: ignore[arg-type]
    assert [v.preference for v in said] == [1.0, 0.5, 0.0, None, None]
    assert "no letter" in said[3].error
    assert said[4].error == "it is down"
    first, swapped = judge.asked[:2]
    assert first.index("ours") < first.index("theirs")
    assert swapped.index("theirs") < swapped.index("ours")


def test_a_judge_with_log_probabilities_weighs_the_two_letters(tiny: Path) -> None:
    judge = LocalEngine.open(str(tiny), long_prompts="cut")
    (same, other) = judged(judge, [("q", "rye", "rye"), ("q", "rye", "oats")])
    assert same.preference == pytest.approx(0.5, abs=1e-5)
    (swapped,) = judged(judge, [("q", "oats", "rye")])
    assert other.preference is not None
    assert swapped.preference is not None
    assert other.preference + swapped.preference == pytest.approx(1, abs=1e-5)


def answered(seed: int | None, text: str = "rye") -> Answered:
    return Answered(f"answers of {seed}", dict.fromkeys(ASKED, text), seed)


def test_seed_s_meets_seed_s_and_a_model_without_seed_meets_all() -> None:
    references = [answered(3), answered(1), answered(2)]
    both = paired("arm", [answered(1), answered(2), answered(3)], references)
    assert [(a.seed, b.seed) for a, b in both] == [(1, 1), (2, 2), (3, 3)]
    alone = paired("rules", [answered(None)], references)
    assert [b.seed for _, b in alone] == [3, 1, 2]
    outside = paired("arm", [answered(1), answered(2)], [answered(None)])
    assert [(a.seed, b.seed) for a, b in outside] == [(1, None), (2, None)]
    said = [[Verdict(1.0, 1, 1)] * 4, [Verdict(0.0, 0, 0)] * 4]
    triples = [(q, "rye", "oats") for q in ASKED]
    rate = _rate("arm", outside, [(triples, verdicts) for verdicts in said], 0.95)
    assert rate["by_seed"] == {"1": 1.0, "2": 0.0}


def test_what_cannot_be_paired_is_named() -> None:
    with pytest.raises(DataError, match="'arm' has training seed 5, the references have 1, 2"):
        paired("arm", [answered(5)], [answered(1), answered(2)])
    with pytest.raises(DataError, match="two references have the training seed 1"):
        paired("arm", [answered(1)], [answered(1), answered(1)])
    short = Answered("short", {ASKED[0]: "rye"}, 1)
    with pytest.raises(DataError, match="3 instructions are answered on one side only"):
        paired("arm", [short], [answered(1)])


def test_a_failure_is_missing_and_no_tie() -> None:
    both = [(answered(1), answered(1)), (answered(2), answered(2))]
    triples = [(q, "rye", "oats") for q in ASKED]
    failed = [Verdict(1.0, 1, 1), Verdict(None, error="down"), *[Verdict(None, error="down")] * 2]
    lost = [Verdict(0.0, 0, 0), Verdict(0.5, 1, 0), Verdict(0.0, 0, 0), Verdict(0.5, 0, 1)]
    rate = _rate("arm", both, [(triples, failed), (triples, lost)], 0.95)
    assert rate["by_seed"] == {"1": 1.0, "2": 0.25}
    assert rate["mean"] == pytest.approx(0.625)
    assert rate["sd"] == pytest.approx(np.std([1, 0.25], ddof=1))
    assert (rate["missing"], rate["judged"], rate["order_decided"]) == (3, 5, 2)
    with pytest.raises(DataError, match="the judge failed on all 4 pairs: down"):
        _rate("arm", both[:1], [(triples, [Verdict(None, error="down")] * 4)], 0.95)


def test_the_length_term_takes_out_what_length_alone_decides() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.integers(50, 150, 4000)
    ours = theirs + rng.integers(-40, 160, 4000)
    gap = ours - theirs
    by_length = 1 / (1 + np.exp(-2 * np.tanh(gap / gap.std())))
    wins = (rng.random(4000) < by_length).astype(float)
    assert wins.mean() > 0.6
    assert length_controlled(wins, ours, theirs) == pytest.approx(0.5, abs=0.04)
    assert length_controlled(np.ones(50), theirs[:50], theirs[:50]) > 0.95


def test_what_needs_no_judge() -> None:
    said = [
        Completion("Rye.\nQuestion: and now?", "length", 3, 8),
        Completion("Answer: oats", "stop", 3, 4),
        Completion("", "stop", 3, 1),
        Completion("a b a b a b", "stop", 3, 6),
    ]
    found = proxies(said)
    assert (found["ended"], found["cap_hits"], found["empty"]) == (0.75, 1, 0.25)
    assert (found["restarts"], found["echoes"]) == (0.25, 0.25)
    assert found["tokens"] == pytest.approx(4.75)
    assert distinct(["a b", "a c"], 1) == 0.75
    assert distinct([], 1) == 0
    assert repetition("a b a b a b", 2) == pytest.approx(0.6)
    assert proxies([])["answers"] == 0


@pytest.fixture(scope="module")
def answers(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Answers of a base in the tags and of two models tuned under other seeds."""
    root = tmp_path_factory.mktemp("answers")
    write_rows(root / "rows.jsonl", [Example.pair(q, "Rye.") for q in ASKED])
    models = {"base": str(Tags(model=str(tiny)).to(root / "base", seed=7, say=quiet).folder)}
    for seed in (1, 2):
        tuned = ResponseOnly(
            model=str(tiny), data=str(root / "rows.jsonl"), max_steps=2, batch_size=4
        )
        models[f"s{seed}"] = str(tuned.to(root / f"t{seed}", seed=seed, say=quiet).folder)
    made = {}
    for name, model in models.items():
        step = Outputs(model=model, data=str(root / "rows.jsonl"), max_new_tokens=6)
        made[name] = str(step.to(root / f"outputs-{name}", seed=9, say=quiet).folder)
    return made


def test_outputs_are_alpaca_evals_and_know_their_training_seed(answers: dict[str, str]) -> None:
    rows = json.loads((Path(answers["s1"]) / "outputs.json").read_text())
    assert [row["instruction"] for row in rows] == ASKED
    assert set(rows[0]) == {"instruction", "output", "generator"}
    seeds = {name: read_outputs(ref).seed for name, ref in answers.items()}
    assert seeds == {"base": None, "s1": 1, "s2": 2}
    manifest = json.loads((Path(answers["s1"]) / "manifest.json").read_text())
    assert {"ended", "cap_hits", "distinct_2", "restarts", "echoes"} <= set(manifest["metrics"])
    assert training_seed("openai:m@http://127.0.0.1:9/v1") is None


def test_a_win_rate_from_end_to_end(tiny: Path, answers: dict[str, str], tmp_path: Path) -> None:
    reference = [answers["s2"], answers["s1"]]  # the order does not matter: the seed does
    arms = {"same": [answers["s1"], answers["s2"]], "base": [answers["base"]]}
    made = WinRate(arms=arms, reference=reference, judge=str(tiny)).to(tmp_path / "w", say=quiet)
    result = json.loads(made.path("win_rate.json").read_text())
    assert result["arms"]["same"]["by_seed"] == pytest.approx({"1": 0.5, "2": 0.5}, abs=1e-5)
    assert len(result["arms"]["base"]["by_seed"]) == 2
    hashes = {r["seed"]: r["sha256"] for r in result["reference"]}
    assert hashes == {s: read_outputs(answers[f"s{s}"]).digest() for s in (1, 2)}
    assert len(made.path("verdicts.jsonl").read_text().splitlines()) == 4 * len(ASKED)


def test_the_held_reference_answers_are_read() -> None:
    held = Path(__file__).parents[3] / "shared/data/implicit-tuning"
    if not held.is_dir():
        pytest.skip("the shared data is not here")
    assert len(read_outputs(str(held / "val-gpt35-reference.json.xz")).answers) == 56


def test_an_instruction_answered_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    row = {"instruction": "q", "output": "a", "generator": "m"}
    path.write_text(json.dumps([row, row]))
    with pytest.raises(DataError, match="answered twice"):
        read_outputs(str(path))
