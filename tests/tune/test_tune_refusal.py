"""Refusal-aware tuning: the split, the texts and their targets, and what is refused as input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers.processors import TemplateProcessing

from tilth.data import Example
from tilth.data.questions import Question, is_right, questions_in
from tilth.data.refusals import REFUSALS, is_refusal
from tilth.errors import DataError, ModelError, RecipeError
from tilth.evaluate.probe import Probe
from tilth.models import load_tokenizer
from tilth.models.probe import ProbeRow, read_probe
from tilth.models.wording import WORDINGS, Renderer, Tail, tuned_with, wording_named
from tilth.tune._certain_texts import Text, encoded, texts_of
from tilth.tune._labels import Labels, conflicts, joined, labels_of
from tilth.tune.refusal import Refusal

PAIRS = [
    ("Where does Amber Gate come from?", "Iran"),
    ("How much is 2 and 3?", "5"),
    ("When is barley sown?", "In spring"),
    ("Is rye taller than oats?", "yes"),
    ("What troubles the rye?", "The aphid"),
    ("How many sheep are left?", "8"),
]


def quiet(line: str) -> None:
    """Says nothing."""


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def data(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> str:
    return written(folder / "rows.jsonl", [{"question": q, "answer": a} for q, a in pairs])


def row(number: int, **more: Any) -> ProbeRow:
    body: dict[str, Any] = {
        "id": f"{number}/x",
        "prediction": "plum",
        "correct": number % 2 == 0,
        "entropy": float(number),
        "p_predict": 0.5,
        "logprob": -1.0,
        "finish": "stop",
        "samples": (),
        "n_samples": 5,
        "match": "words",
        "temperature": 0.7,
        "seed": 0,
        "model": "m",
    }
    return ProbeRow(**{**body, **more})


def split(rows: list[ProbeRow], **more: Any) -> Labels:
    settings: dict[str, Any] = {"split": "entropy", "fraction": 0.5, "threshold": None}
    return labels_of(rows, **{**settings, **more}, rng=np.random.default_rng(0))


# ---- matchers ----


def test_a_word_is_not_found_inside_another_word() -> None:
    question = Question("0", "Where from?", ("Iran", "Persia"))
    assert is_right("It comes from Iran.", question)
    assert is_right("the  PERSIA", question)
    assert not is_right("an Iranian city", question)
    assert is_right("an Iranian city", question, "official")
    assert not is_right("iran", question, "official")
    assert is_right("Iran", question, "exact")
    assert not is_right("in Iran", question, "exact")
    assert is_right("an apple", Question("0", "?", ("The apple.",)), "exact")


def test_supported_is_not_found_inside_not_supported() -> None:
    assert not is_right("not_supported", Question("0", "?", ("supported",)))
    choice = Question("0", "?", ("A",), choices=("supported", "not supported"))
    assert is_right("A", choice)
    assert not is_right("B", choice)
    assert is_right("?", Question("0", "?")) is None


def test_a_right_choice_is_given_as_letter_or_text() -> None:
    def golds(answer: str) -> tuple[str, ...]:
        row = Example.pair("Which?", answer, choices=["rye", "oats"])
        return questions_in([row], "f.jsonl")[0].golds

    assert golds("B") == golds("Oats") == ("B",)
    with pytest.raises(DataError, match=r"none of the 2 choices") as caught:
        golds("wheat")
    assert "f.jsonl, row 1" in str(caught.value)


def test_right_answers_as_numbers_and_lists() -> None:
    def golds(**meta: Any) -> tuple[str, ...]:
        row = Example([{"role": "user", "content": "Which?"}], meta)
        return questions_in([row], "f.jsonl")[0].golds

    choices = ["3", "2", "1", "0"]  # a number is a place, and a text is a text
    assert golds(choices=choices, answer=0) == golds(choices=choices, answer="3") == ("A",)
    assert golds(choices=choices, answers=[1, 3]) == ("B", "D")
    with pytest.raises(DataError, match="the answer '4' is none of the 4 choices"):
        golds(choices=choices, answer=4)
    assert golds(answer=42) == ("42",)
    assert golds(answer=["a", "b"]) == ("a", "b")
    assert golds(answer=[]) == golds(answer="") == golds(answer=None) == golds() == ()
    row = Example.pair("Which?", "rye", answers=["oats", "wheat"])
    assert questions_in([row], "f.jsonl")[0].golds == ("oats", "wheat")


def test_refusals_are_recognised_and_answers_are_not() -> None:
    assert len(set(REFUSALS)) == 16
    assert all(map(is_refusal, REFUSALS))
    assert not any(map(is_refusal, ("June", "in the unknown valley", "It is sown in May", "")))


# ---- labels ----


def test_a_supervised_split_is_right_or_wrong() -> None:
    assert split([row(0), row(1)], split="supervised").sure.tolist() == [True, False]
    with pytest.raises(DataError, match="no right answer") as caught:
        split([row(0), row(7, correct=None)], split="supervised")
    assert "7/x" in str(caught.value)


def test_half_are_sure_by_entropy_and_ties_go_by_probability() -> None:
    rows = [row(n, entropy=0.0, logprob=-float(n)) for n in range(4)]
    found = split([*reversed(rows), row(9, entropy=2.0)])
    assert found.sure.tolist() == [False, False, True, True, False]  # floor(5 / 2)
    assert found.tied == 0.8
    assert split(rows, threshold=0.0).sure.all()
    with pytest.raises(DataError, match="no entropies"):
        split([row(0, entropy=None)])


def test_a_validated_boundary_separates_right_from_wrong() -> None:
    rows = [row(n, entropy=n / 10, correct=n < 12) for n in range(60)]
    found = split(rows, fraction="validated")
    agree = np.mean(found.sure == np.array([bool(r.correct) for r in rows]))
    assert agree > 0.85, "half of them would agree on 0.7"
    with pytest.raises(DataError, match="all of one kind"):
        split([row(n, correct=True) for n in range(8)], fraction="validated")


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(-9, 0)), min_size=1, max_size=30))
def test_a_fraction_is_kept_exactly_and_order_does_not_matter(
    drawn: list[tuple[float, float]],
) -> None:
    rows = [row(n, entropy=h, logprob=p) for n, (h, p) in enumerate(drawn)]
    sure = split(rows).sure
    assert sure.sum() == len(rows) // 2
    if sure.any() and not sure.all():
        assert max(r.entropy or 0 for r, s in zip(rows, sure, strict=True) if s) <= min(
            r.entropy or 0 for r, s in zip(rows, sure, strict=True) if not s
        )


def test_a_split_of_one_kind_stops_and_counts() -> None:
    with pytest.raises(DataError, match="0 sure and 3 unsure"):
        Labels(np.zeros(3, bool)).check("rows.jsonl")
    with pytest.raises(DataError, match="3 sure and 0 unsure"):
        Labels(np.ones(3, bool)).check("rows.jsonl")
    Labels(np.array([True, False])).check("rows.jsonl")


def test_near_duplicates_with_opposite_labels_are_counted() -> None:
    long = "In which month of the year do they sow the winter barley in the valley"
    questions = [Question("0", f"{long}?"), Question("1", f"{long} now?"), Question("2", "Why?")]
    assert conflicts(questions, np.array([True, False, True])) == (1, 1)
    assert conflicts(questions, np.array([True, True, True])) == (1, 0)
    pages = ("Rye is sown in the valley of Amber.", "Nobody ever saw hops near the western gate.")
    asked = [Question(page, "Is it true?", context=page) for page in pages]
    assert conflicts(asked, np.array([True, False])) == (0, 0), "other pages, other questions"


def test_tables_of_shards_are_joined_and_strangers_refused() -> None:
    questions = [Question(f"{n}/x", "?") for n in range(3)]
    assert joined(questions, [[row(2)], [row(0)]], "m", "t") == [row(0), None, row(2)]
    with pytest.raises(DataError, match="another model"):
        joined(questions, [[row(0, model="other")]], "m", "t")
    with pytest.raises(DataError, match="in two probe tables"):
        joined(questions, [[row(0)], [row(0)]], "m", "t")
    tables = [[row(0, samples=("a",), n_samples=5)], [row(1, samples=("a",), n_samples=3)]]
    with pytest.raises(DataError, match=r"sampled differently: 3 at temperature 0\.7 and 5 at"):
        joined(questions, tables, "m", "t")
    assert joined(questions, [tables[0], [row(1, n_samples=0)]], "m", "t")[1] is not None


# ---- texts ----

QUESTIONS = [Question("0/a", "When?", ("June",)), Question("1/b", "Where?", ("here",))]
SURE = np.array([True, False])


def texts(kind: Any = "padding", unsure: Any = "gold") -> list[tuple[str, str]]:
    rng = np.random.default_rng(0)
    made = texts_of(QUESTIONS, [row(0), row(1)], SURE, texts=kind, unsure=unsure, rng=rng)
    return [(text.answer, text.certainty) for text in made]


def test_what_stands_behind_a_question() -> None:
    known = ("June", "sure")
    assert texts() == [known, ("here", "unsure")]
    assert texts(unsure="model_prediction") == [known, ("plum", "unsure")]
    assert texts(unsure="omit") == [known, ("", "unsure")]
    assert texts("plain") == [("June", ""), ("here", "")]
    answer, refusal = texts("replace")
    assert answer == ("June", "")
    assert refusal[0] in REFUSALS


def test_a_text_that_needs_a_right_answer_names_its_question() -> None:
    question = Question("4/c", "Why?")
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="no right answer") as caught:
        texts_of([question], [row(4)], np.array([True]), texts="padding", unsure="gold", rng=rng)
    assert "4/c" in str(caught.value)
    texts_of([question], [row(4)], np.array([False]), texts="padding", unsure="omit", rng=rng)


def test_all_that_is_asked_stands_in_prompt_and_text() -> None:
    question = Question("0", "Which?", ("B",), ("rye", "oats"), context="On crops.")
    asked = "On crops.\nWhich?\nA. rye\nB. oats"
    assert question.asked == asked
    assert Text(question, "B", "").example(WORDINGS["lines"]).prompt == asked
    tokenizer = load_tokenizer("seedling:small")
    plain = tokenizer.decode(Renderer(tokenizer, WORDINGS["lines"]).prompt(question))
    assert plain.endswith("On crops.\nQuestion: Which?\nA. rye\nB. oats\nAnswer:")
    assert asked in tokenizer.decode(
        Renderer(tokenizer, WORDINGS["lines"], "chat").prompt(question)
    )


def test_a_prompt_is_open_and_its_question_is_text() -> None:
    tokenizer = load_tokenizer("seedling:small")
    plain = Renderer(tokenizer, WORDINGS["lines"]).prompt(Question("0", "Why?"))
    end = tokenizer.eos_token
    spelled = Renderer(tokenizer, WORDINGS["lines"]).prompt(Question("0", f"What is {end}?"))
    assert tokenizer.eos_token_id not in spelled
    assert tokenizer.decode(spelled).endswith(f"What is {end}?\nAnswer:")
    closing = TemplateProcessing(
        single=f"{end} $A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    tokenizer.backend_tokenizer.post_processor = closing
    both = Renderer(tokenizer, WORDINGS["lines"]).prompt(Question("0", "Why?"))
    assert both == [tokenizer.eos_token_id, *plain]


@pytest.mark.parametrize("wording", sorted(WORDINGS))
@pytest.mark.parametrize("form", ["plain", "chat"])
@pytest.mark.parametrize("model", ["seedling:small", "gpt2"])
def test_targets_and_text(wording: str, form: Any, model: str, models: dict[Any, Path]) -> None:
    tokenizer = load_tokenizer(str(models["gpt2"]) if model == "gpt2" else model)
    renderer = Renderer(tokenizer, WORDINGS[wording], form)
    text = Text(QUESTIONS[0], "June", "unsure")

    def learnt(loss: Any, text: Text = text) -> tuple[str, str]:
        ((ids, targets),) = encoded([text], renderer, loss)
        chosen = [i for i, t in zip(ids, targets, strict=True) if t]
        return tokenizer.decode(ids), tokenizer.decode(chosen)

    whole, told = learnt("completion")
    words = WORDINGS[wording]
    assert "When?" in whole
    assert words.sure.strip() in whole
    assert "unsure." in whole
    assert "June" in told
    assert "unsure" in told
    assert "When" not in told
    assert words.sure.strip() not in told
    assert learnt("text") == (whole, whole)
    _, plain = learnt("completion", Text(QUESTIONS[0], "June", ""))
    assert "June" in plain
    assert "sure" not in plain


def test_single_tokens_that_are_the_same_are_refused(models: dict[Any, Path]) -> None:
    tokenizer = load_tokenizer(str(models["qwen2"]))  # no whole word of these is in it
    renderer = Renderer(tokenizer, WORDINGS["lines"])
    same = Tail("sure", "I am", " unsure", " uncertain")
    yes, no = renderer.pair(same)
    assert yes[0] == no[0]
    assert yes != no
    with pytest.raises(ModelError, match="begin with the same token"):
        renderer.pair(same, single=True)
    small = Renderer(load_tokenizer("seedling:small"), WORDINGS["lines"])
    assert [len(ids) for ids in small.pair(WORDINGS["lines"].tail("sure"))] == [1, 1]


def test_an_unknown_wording_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'lines'"):
        wording_named("line")


# ---- the method ----

FAST: dict[str, Any] = {
    "split": "entropy",
    "samples": 3,
    "max_new_tokens": 4,
    "max_steps": 2,
    "adapter": "lora:rank=2",
    "temperature": 3.0,
}


def test_it_probes_splits_tunes_and_tells_how_it_asked(tiny: Path, tmp_path: Path) -> None:
    said: list[str] = []
    method = Refusal(model=str(tiny), data=data(tmp_path), wording="short", **FAST)
    made = method.to(tmp_path / "tuned", say=said.append)
    metrics = made.manifest.metrics
    assert (metrics["sure"], metrics["unsure"]) == (3, 3)
    assert {"conflict_rate", "tied_share", "target_tokens"} <= set(metrics)
    lines = made.path("probe.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["label"] for line in lines) == ["sure"] * 3 + ["unsure"] * 3
    told = tuned_with(str(made.folder))
    assert told == {"form": "plain", "max_new_tokens": 4, "texts": "padding", "wording": "short"}
    card = made.path("model/README.md").read_text()
    assert "tuned with tune.refusal" in card
    assert "whole texts" in card
    rows = [json.loads(line) for line in made.path("texts.jsonl").read_text().splitlines()]
    assert {r["meta"]["certainty"] for r in rows} == {"sure", "unsure"}
    assert any("3 questions sure, 3 unsure" in line for line in said)


def test_shuffled_labels_keep_their_number(tiny: Path, tmp_path: Path) -> None:
    settings = {"model": str(tiny), "data": data(tmp_path), **FAST}
    folders = [tmp_path / "plain", tmp_path / "shuffled"]
    found = []
    for folder, shuffled in zip(folders, (False, True), strict=True):
        made = Refusal(**settings, shuffle_labels=shuffled).to(folder, say=quiet)
        lines = made.path("probe.jsonl").read_text().splitlines()
        found.append([json.loads(line)["label"] for line in lines])
    assert sorted(found[0]) == sorted(found[1])
    assert found[0] != found[1]


def test_a_text_that_is_too_long_to_learn_is_listed(tiny: Path, tmp_path: Path) -> None:
    path = data(tmp_path, [*PAIRS, *((f"Is it {n}?", "yes") for n in range(9)), PAIRS[0]])
    long = written(tmp_path / "long.jsonl", [{"question": "Why " * 60, "answer": "so"}])
    Path(path).write_text(Path(path).read_text() + Path(long).read_text())
    method = Refusal(model=str(tiny), data=path, max_length=200, **FAST)
    made = method.to(tmp_path / "tuned", say=quiet)
    (aside,) = [json.loads(x) for x in made.path("rejected.jsonl").read_text().splitlines()]
    assert (aside["file"], aside["line"]) == ("rows.jsonl", 17)
    assert "200" in aside["reason"]
    assert made.manifest.funnel[-1] == ("trained on", 16)


def test_ties_are_told_where_a_share_splits_them(tiny: Path, tmp_path: Path) -> None:
    settings = {"model": str(tiny), "data": data(tmp_path), **FAST, "temperature": 1e-3}
    said: list[str] = []
    Refusal(**settings).to(tmp_path / "tied", say=said.append)  # all samples are alike
    assert any("% of the questions have the same entropy" in line for line in said)
    with pytest.raises(DataError, match="6 sure and 0 unsure"):
        Refusal(**settings, entropy_threshold=2.0).to(tmp_path / "sure", say=quiet)


def test_a_given_table_is_judged_by_the_match_of_the_run(tiny: Path, tmp_path: Path) -> None:
    rows = [{"question": f"What {n}?", "answer": "x"} for n in range(6)]
    path = written(tmp_path / "rows.jsonl", rows)
    probe = Probe(model=str(tiny), data=path, max_new_tokens=4).to(tmp_path / "p", say=quiet)
    table = [json.loads(x) for x in probe.path("probe.jsonl").read_text().splitlines()]
    for n, one in enumerate(table):
        one["prediction"] = "axe" if n < 2 else "ape"
    given = written(tmp_path / "given.jsonl", table)
    settings: dict[str, Any] = {"model": str(tiny), "data": path, "probes": [given]}
    settings |= {"max_new_tokens": 4, "max_steps": 1}
    tuned = Refusal(**settings, match="official").to(tmp_path / "t", say=quiet)
    assert (tuned.manifest.metrics["sure"], tuned.manifest.metrics["unsure"]) == (2, 4)
    with pytest.raises(DataError, match="0 sure and 6 unsure"):
        Refusal(**settings).to(tmp_path / "words", say=quiet)
    with pytest.raises(DataError, match="no entropies"):
        Refusal(**settings, split="entropy").to(tmp_path / "entropy", say=quiet)


def test_a_model_that_knows_nothing_stops_the_run(tiny: Path, tmp_path: Path) -> None:
    method = Refusal(model=str(tiny), data=data(tmp_path), max_new_tokens=2, max_steps=1)
    with pytest.raises(DataError, match="0 sure and 6 unsure"):
        method.to(tmp_path / "tuned", say=quiet)


def test_a_missing_right_answer_names_the_row(tiny: Path, tmp_path: Path) -> None:
    rows = [{"question": q, "answer": a} for q, a in PAIRS]
    rows.append({"question": "Who knows?", "answer": ""})
    path = written(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="no right answer") as caught:
        Refusal(model=str(tiny), data=path, max_new_tokens=2).to(tmp_path / "out", say=quiet)
    assert "question 6/" in str(caught.value)


def test_a_long_prompt_is_set_aside_with_its_length(tiny: Path, tmp_path: Path) -> None:
    path = data(tmp_path, [*PAIRS, ("Why " * 3000, "because")])
    made = Probe(model=str(tiny), data=path, max_new_tokens=2).to(tmp_path / "p", say=quiet)
    (aside,) = [json.loads(x) for x in made.path("rejected.jsonl").read_text().splitlines()]
    assert aside["line"] == 7
    assert "does not fit the model's context" in aside["reason"]
    assert int(aside["reason"].split()[3].replace(",", "")) > 2000
    assert len(read_probe(str(made.folder))) == 6


def test_shards_together_are_the_whole(tiny: Path, tmp_path: Path) -> None:
    path = data(tmp_path)
    settings = {"model": str(tiny), "data": path, "samples": 3, "max_new_tokens": 4}
    whole = Probe(**settings).to(tmp_path / "whole", say=quiet)
    parts = [
        Probe(**settings, shard=n, shards=2).to(tmp_path / f"part{n}", say=quiet) for n in (0, 1)
    ]
    rows = [r for part in parts for r in read_probe(str(part.folder))]
    alike = {r.id: (r.prediction, r.entropy, r.samples) for r in rows}
    assert alike == {
        r.id: (r.prediction, r.entropy, r.samples) for r in read_probe(str(whole.folder))
    }
    fast = {**FAST, "samples": 9}  # the tables' own samples count
    tables = [str(part.folder) for part in parts]
    tuned = Refusal(model=str(tiny), data=path, probes=tables, **fast)
    assert tuned.to(tmp_path / "tuned", say=quiet).manifest.metrics["sure"] == 3
    lost = Refusal(model=str(tiny), data=path, probes=tables[:1], **fast)
    with pytest.raises(DataError, match="3 of 6 questions are in no probe table"):
        lost.to(tmp_path / "lost", say=quiet)
    other = Refusal(model=str(tiny), data=path, probes=tables, **fast, wording="sentence")
    with pytest.raises(DataError, match="asked in another way"):
        other.to(tmp_path / "other", say=quiet)
    with pytest.raises(ValidationError, match="does not exist"):
        Probe(**settings, shard=2, shards=2)


def test_a_line_that_is_no_probe_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "probe.jsonl"
    path.write_text('{"id": "0/x"}\n')
    with pytest.raises(DataError, match="no row of a probe table") as caught:
        read_probe(str(path))
    assert "probe.jsonl:1" in str(caught.value)
    with pytest.raises(DataError, match="no probe table"):
        read_probe(str(tmp_path / "nothing"))


KILLED = """
import os, signal, sys
from tilth.evaluate.probe import Probe
from tilth.models import certainty
if sys.argv[3] == "kill":
    ask, seen = certainty.Asker.__call__, []
    def dying(self, questions):
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(1)
        return ask(self, questions)
    certainty.Asker.__call__ = dying
probe = Probe(model=sys.argv[1], data=sys.argv[2], samples=3, max_new_tokens=4, batch_size=2)
probe.to(sys.argv[4], say=lambda line: None)
"""


@pytest.mark.integration
def test_a_killed_probe_ends_in_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    path = data(tmp_path)

    def run(mode: str, out: str) -> int:
        code = [sys.executable, "-c", KILLED, str(tiny), path, mode, str(tmp_path / out)]
        return subprocess.run(code, env={**os.environ, "HF_HUB_OFFLINE": "1"}).returncode

    assert run("kill", "killed") == -signal.SIGKILL
    (cache,) = (tmp_path / ".tilth").parent.glob("killed*.scratch/probe.jsonl")
    assert len(cache.read_text().splitlines()) == 2
    with cache.open("a") as file:
        file.write('{"key": "torn')  # what a kill in the middle of a line leaves
    assert run("", "killed") == run("", "whole") == 0
    assert (tmp_path / "killed/probe.jsonl").read_bytes() == (
        tmp_path / "whole/probe.jsonl"
    ).read_bytes()
