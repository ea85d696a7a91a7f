"""What a refusing model is measured by, against sklearn and by hand; the threshold; bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import average_precision_score

from tilth.almanac.skills import split_of
from tilth.almanac.strangers import fact_questions, stranger_questions
from tilth.almanac.world import World
from tilth.errors import DataError, ModelError
from tilth.evaluate._refusal_metrics import (
    area_under_risk,
    average_precision,
    calibration_error,
    choose_threshold,
    estimate,
    risk_coverage,
)
from tilth.evaluate.refusal import Refusal

SCORED = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()),
    min_size=1,
    max_size=40,
)


def quiet(line: str) -> None:
    """Says nothing."""


def value(metrics: dict[str, Any], name: str) -> float:
    return float(metrics[name]["value"])


# ---- numbers ----


@given(SCORED)
def test_average_precision_is_that_of_sklearn(drawn: list[tuple[float, bool]]) -> None:
    trust, right = zip(*drawn, strict=True)
    expected = average_precision_score(right, trust) if any(right) else 0.0
    assert average_precision(trust, right) == pytest.approx(expected)


@given(SCORED)
def test_the_curve_ends_with_all_questions(drawn: list[tuple[float, bool]]) -> None:
    trust, right = zip(*drawn, strict=True)
    cuts, coverage, risk = risk_coverage(trust, right)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(1 - np.mean(right))
    assert (np.diff(coverage) > 0).all()
    for cut, covered in zip(cuts, coverage, strict=True):
        assert np.mean(np.array(trust) >= cut) == pytest.approx(covered)


def test_the_area_by_hand() -> None:
    assert area_under_risk([0.9, 0.8, 0.1], [1, 0, 1]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    # one cut answers 1 of 4 rightly, the next all four with two wrong: steps of 1/4 and 3/4
    assert area_under_risk([0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0]) == pytest.approx(3 / 4 * 1 / 2)


def test_calibration_by_hand() -> None:
    # bin 9: two of 0.95, one right; bin 2: one of 0.2, wrong; bin 10 does not exist: 1.0 is in 9
    error = calibration_error([0.95, 0.95, 0.2, 1.0], [1, 0, 0, 1])
    assert error == pytest.approx((abs(2 - 2.9) + 0.2) / 4)
    assert calibration_error([0.5, 0.5], [1, 0]) == 0


def test_a_threshold_by_each_rule() -> None:
    trust, right = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0]
    assert choose_threshold(trust, right) == 0.8  # 2/3 of the right, none of the wrong
    assert choose_threshold(trust, right, "coverage", 0.5) == 0.7
    assert choose_threshold(trust, right, "risk", 0.3) == 0.6  # 1 of 4 wrong
    assert choose_threshold(trust, right, "risk", 0.1) == 0.8
    with pytest.raises(DataError, match="no threshold keeps"):
        choose_threshold([0.9, 0.8], [0, 1], "risk", 0.1)
    with pytest.raises(DataError, match="0 of 2 validation answers"):
        choose_threshold([0.9, 0.8], [0, 0])


@given(SCORED, st.floats(0.05, 1))
def test_coverage_is_reached_and_not_exceeded_by_a_step(
    drawn: list[tuple[float, bool]], target: float
) -> None:
    trust, right = zip(*drawn, strict=True)
    cut = choose_threshold(trust, right, "coverage", target)
    assert np.mean(np.array(trust) >= cut) >= target - 1e-9
    assert np.mean(np.array(trust) > cut) < target


def test_an_interval_holds_its_value_and_is_drawn_by_questions() -> None:
    columns = {"right": np.arange(100) % 2, "refused": np.arange(100) % 4 == 1}
    found = estimate(columns, lambda c: float((c["right"] * (1 - c["refused"])).sum() / 100), 400)
    assert found.value == 0.25
    assert found.low < 0.25 < found.high
    assert (found.items, found.seeds) == (100, 1)


# ---- the almanac's questions ----


def test_strangers_do_not_exist_and_their_twins_do() -> None:
    relations = ("crop", "soil", "remedy")
    rows = stranger_questions(relations, "testing")
    names = {e.name for entities in World.of().entities.values() for e in entities}
    assert len(rows) >= 40
    for stranger, twin in zip(rows[::2], rows[1::2], strict=True):
        assert stranger.meta["pair"] == twin.meta["pair"]
        assert stranger.meta["entity"] not in names
        assert twin.meta["entity"] in names
        assert (stranger.answer, stranger.meta["answerable"]) == ("", False)
        assert twin.answer == twin.meta["told"]
        assert twin.meta["exposure"] >= 64
        same = stranger.prompt.replace(stranger.meta["entity"], twin.meta["entity"])
        assert same == twin.prompt
        assert split_of(f"entity:{stranger.meta['entity']}") == "testing"


def test_facts_are_asked_of_their_split_alone() -> None:
    rows = fact_questions(("crop", "trade"), "tuning", seed=3, count=50)
    assert len(rows) == 50
    assert {row.meta["relation"] for row in rows} == {"crop", "trade"}
    assert {split_of(f"entity:{row.meta['entity']}") for row in rows} == {"tuning"}
    assert [r.id for r in rows] == [r.id for r in fact_questions(("crop", "trade"), "tuning", 3)][
        :50
    ]
    assert {r.id for r in rows} != {r.id for r in fact_questions(("crop", "trade"), "tuning", 4)}


# ---- the method ----

SMALL = {"max_new_tokens": 6, "wording": "short", "resamples": 100}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("facts")
    relations = ("crop", "soil", "month")
    strangers = [r.as_dict() for r in stranger_questions(relations, "testing", count=15)]
    asked = {row["messages"][0]["content"] for row in strangers}
    test = [r.as_dict() for r in fact_questions(relations, "testing", count=60)]
    test = [row for row in test if row["messages"][0]["content"] not in asked]
    validation = [r.as_dict() for r in fact_questions(relations, "validation", count=60)]
    return {
        "test": written(folder / "test.jsonl", [*test, *strangers]),
        "validation": written(folder / "validation.jsonl", validation),
    }


def test_a_base_model_refuses_strangers_by_its_probabilities(
    facts: dict[str, str], tmp_path: Path
) -> None:
    said: list[str] = []
    made = Refusal(
        model="seedling:large",
        data=facts["test"],
        validation=facts["validation"],
        base="seedling:large",
        refuse_by="p_predict",
        **SMALL,
    ).to(tmp_path / "out", say=said.append)
    metrics = made.manifest.metrics
    assert metrics["over_refusal_on"] == "answerable twins"
    assert value(metrics, "unanswerable_refused") > value(metrics, "over_refusal") + 0.3
    assert value(metrics, "willing_accuracy") > value(metrics, "accuracy")
    # the model is its own base: what it was willing to answer, it answers as well
    assert value(metrics, "pretrain_t") == value(metrics, "accuracy")
    assert value(metrics, "pretrain_w") == value(metrics, "willing_accuracy")
    assert value(metrics, "coverage") == pytest.approx(1 - value(metrics, "refusal_rate"))
    rows = [json.loads(x) for x in made.path("refusal.jsonl").read_text().splitlines()]
    threshold = metrics["threshold"]
    assert all(row["refused"] == (row["trust"] < threshold) for row in rows)
    known = [row for row in rows if row["answerable"]]
    kept = [row for row in known if not row["refused"]]
    assert value(metrics, "coverage") == pytest.approx(len(kept) / len(known))
    right = sum(row["correct"] for row in kept) / len(kept)
    assert value(metrics, "willing_accuracy") == pytest.approx(right)
    confidence = [0.5 * row["p_predict"] + 0.5 * row["p_sure"] for row in rows]
    assert [row["confidence"] for row in rows] == pytest.approx(confidence)
    curve = [json.loads(x) for x in made.path("curve.jsonl").read_text().splitlines()]
    assert curve[-1]["coverage"] == 1
    assert any("refuses" in line and "of answerable twins" in line for line in said)


@pytest.mark.parametrize("by", ["entropy", "p_true", "confidence", "p_refusal"])
def test_every_test_time_number_can_decide(by: str, facts: dict[str, str], tmp_path: Path) -> None:
    made = Refusal(
        model="seedling:large",
        data=facts["test"],
        validation=facts["validation"],
        refuse_by=by,  # type: ignore[arg-type]
        rule="coverage",
        target=0.5,
        samples=3,
        **SMALL,
    ).to(tmp_path / "out", say=quiet)
    rows = [json.loads(x) for x in made.path("refusal.jsonl").read_text().splitlines()]
    threshold = made.manifest.metrics["threshold"]
    if by == "entropy":
        assert all(row["refused"] == (row["entropy"] > threshold) for row in rows)
        assert [row["trust"] for row in rows] == [-row["entropy"] for row in rows]
        assert value(made.manifest.metrics, "ap") > 0.6
    else:
        assert all(row["refused"] == (row["trust"] < threshold) for row in rows)


def test_a_given_entropy_is_the_largest(tiny: Path, tmp_path: Path) -> None:
    rows = [{"question": f"Which {n}?", "answer": "A", "choices": ["rye", "hops"]} for n in (1, 2)]
    data = written(tmp_path / "d.jsonl", rows)
    for limit, coverage in ((0.7, 1), (0.0, 0)):  # two choices have at most ln 2 = 0.693
        made = Refusal(
            model=str(tiny), data=data, refuse_by="entropy", threshold=limit, resamples=100
        ).to(tmp_path / f"{limit}", say=quiet)
        assert value(made.manifest.metrics, "coverage") == coverage
        assert made.manifest.metrics["threshold"] == limit


def test_refusals_in_words_are_counted(tiny: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "d.jsonl", [{"question": "Why?", "answer": "x"}] * 3)
    made = Refusal(model=str(tiny), data=data, refuse_by="words", max_new_tokens=3).to(
        tmp_path / "out", say=quiet
    )
    assert value(made.manifest.metrics, "refusal_rate") == 0
    assert made.manifest.metrics["threshold"] is None


def test_choices_are_asked_by_letter(tiny: Path, tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "answer": "rye", "choices": ["rye", "oats"]},
        {"question": "Which now?", "answer": "B", "choices": ["rye", "oats", "hops"]},
    ]
    made = Refusal(
        model=str(tiny), data=written(tmp_path / "d.jsonl", rows), threshold=0.0, resamples=100
    ).to(tmp_path / "out", say=quiet)
    table = [json.loads(x) for x in made.path("refusal.jsonl").read_text().splitlines()]
    assert {row["prediction"] for row in table} <= set("ABC")
    assert all(row["entropy"] is not None for row in table)


def test_a_threshold_must_come_from_somewhere() -> None:
    with pytest.raises(ValidationError, match=r"0\.5 means nothing here"):
        Refusal(model="seedling:small", data="d.jsonl")
    with pytest.raises(ValidationError, match="target belongs to"):
        Refusal(model="seedling:small", data="d.jsonl", threshold=0.1, target=0.5)
    with pytest.raises(ValidationError, match="target belongs to"):
        Refusal(model="seedling:small", data="d.jsonl", validation="v.jsonl", rule="coverage")
    with pytest.raises(ValidationError, match="has no threshold"):
        Refusal(model="seedling:small", data="d.jsonl", refuse_by="words", threshold=0.1)


def test_what_a_question_scores_and_each_task_by_itself(
    facts: dict[str, str], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in Path(facts["test"]).read_text().splitlines()]
    for row in rows:
        row["meta"]["task"] = "crop" if row["meta"]["relation"] == "crop" else "rest"
    data = written(tmp_path / "d.jsonl", rows)
    made = Refusal(
        model="seedling:large", data=data, refuse_by="p_predict", threshold=0.6, **SMALL
    ).to(tmp_path / "out", say=quiet)
    table = [json.loads(x) for x in made.path("refusal.jsonl").read_text().splitlines()]
    scores = [json.loads(x) for x in made.path("scores.jsonl").read_text().splitlines()]
    for row, score in zip(table, scores, strict=True):
        given = {True: 1.0, False: 0.0}[row["correct"]]
        expected = 0.5 if row["refused"] else given
        assert score["score"] == (expected if row["answerable"] else float(row["refused"]))
        assert score["output"].startswith("[refused] ") == row["refused"]
    found = made.manifest.metrics["by_task"]
    assert set(found) == {"crop", "rest"}
    crops = [row for row in table if row["task"] == "crop" and row["answerable"]]
    given = [row["correct"] for row in crops if not row["refused"]]
    assert found["crop"]["questions"] == len(crops)
    assert value(found["crop"], "coverage") == pytest.approx(len(given) / len(crops))
    assert value(found["crop"], "willing_accuracy") == pytest.approx(np.mean(given))


def test_a_coverage_is_that_of_answerable_questions(tiny: Path, tmp_path: Path) -> None:
    def page(name: str, word: str) -> str:
        rows = [{"question": f"{word} {n}?", "answer": "x"} for n in range(10)]
        rows += [{**row, "question": f"Not {row['question']}", "answerable": False} for row in rows]
        return written(tmp_path / name, rows)

    made = Refusal(
        model=str(tiny),
        data=page("d.jsonl", "Where"),
        validation=page("v.jsonl", "When"),
        refuse_by="p_predict",
        rule="coverage",
        target=1.0,
        max_new_tokens=2,
    ).to(tmp_path / "out", say=quiet)
    lowest = made.manifest.metrics["threshold"]
    asked = Refusal(
        model=str(tiny),
        data=page("v.jsonl", "When"),
        threshold=0.0,
        refuse_by="p_predict",
        max_new_tokens=2,
    ).to(tmp_path / "all", say=quiet)
    table = [json.loads(x) for x in asked.path("refusal.jsonl").read_text().splitlines()]
    assert lowest == pytest.approx(min(r["trust"] for r in table if r["answerable"]), abs=1e-6)


def test_a_base_with_a_shorter_context_is_named(tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 30}))
    data = written(tmp_path / "d.jsonl", [{"question": "Why so?", "answer": "x"}])
    method = Refusal(model=str(tiny), data=data, base=str(base), threshold=0.0)
    with pytest.raises(DataError, match="but not that of base"):
        method.to(tmp_path / "out", say=quiet)


def test_a_certainty_that_was_never_taught_is_told(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    told = {"texts": "plain", "wording": "short", "form": "plain", "max_new_tokens": 3}
    (folder / "refusal.json").write_text(json.dumps(told))
    rows = [{"question": f"Why {n}?", "answer": "x", "context": f"{n}."} for n in range(3)]
    data = written(tmp_path / "d.jsonl", rows)
    for by, warned in (("p_sure", True), ("p_predict", False)):
        said: list[str] = []
        made = Refusal(model=str(folder), data=data, threshold=0.0, refuse_by=by).to(  # type: ignore[arg-type]
            tmp_path / by, say=said.append
        )
        assert any("it says nothing of certainty" in line for line in said) == warned
        assert made.manifest.metrics["wording"] == "short"


def test_the_same_words_about_another_page_are_another_question(tiny: Path, tmp_path: Path) -> None:
    def pages(name: str, first: int) -> str:
        rows = [
            {"question": "Is it?", "answer": "yes", "context": f"Page {n}."}
            for n in range(first, first + 3)
        ]
        return written(tmp_path / name, rows)

    method = Refusal(
        model=str(tiny),
        data=pages("d.jsonl", 0),
        validation=pages("v.jsonl", 3),
        rule="coverage",
        target=0.5,
        max_new_tokens=2,
    )
    assert method.to(tmp_path / "out", say=quiet).manifest.metrics["questions"] == 3


def test_a_validation_question_may_not_be_a_test_question(tiny: Path, tmp_path: Path) -> None:
    rows = [{"question": f"Why {n}?", "answer": "x"} for n in range(3)]
    data = written(tmp_path / "d.jsonl", rows)
    held = written(tmp_path / "v.jsonl", rows[2:])
    with pytest.raises(DataError, match="also a test question"):
        Refusal(model=str(tiny), data=data, validation=held, max_new_tokens=2).to(
            tmp_path / "out", say=quiet
        )


def test_questions_that_cannot_be_judged_are_listed(tiny: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"question": f"Why {n}?", "answer": "x"} for n in range(9)]
    rows += [{"question": "Why " * 3000, "answer": "x"}, {"question": "Who?", "answer": ""}]
    rows += [{"question": "Whence?", "answer": "", "answerable": False}]
    data = written(tmp_path / "d.jsonl", rows)
    made = Refusal(model=str(tiny), data=data, threshold=0.0, max_new_tokens=2).to(
        tmp_path / "out", say=quiet
    )
    aside = [json.loads(x) for x in made.path("rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in aside] == [10, 11]
    assert "does not fit the model's context" in aside[0]["reason"]
    assert "no right answer is known" in aside[1]["reason"]
    metrics = made.manifest.metrics
    assert "by_task" not in metrics
    assert (metrics["questions"], metrics["unanswerable"]) == (9, 1)
    assert metrics["over_refusal_on"] == "all answerable questions"
    only = written(tmp_path / "u.jsonl", rows[-1:])
    with pytest.raises(DataError, match="no answerable question"):
        Refusal(model=str(tiny), data=only, threshold=0.0).to(tmp_path / "u", say=quiet)


def test_an_endpoint_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "d.jsonl", [{"question": "Why?", "answer": "x"}])
    method = Refusal(model="openai:m@http://localhost:9/v1", data=data, threshold=0.5)
    with pytest.raises(ModelError, match="cannot be loaded as a local model"):
        method.to(tmp_path / "out", say=quiet)
