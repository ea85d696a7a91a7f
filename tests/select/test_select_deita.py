"""Deita: sample scores and the filter by hand, every part as a setting, every bad input told."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_models import tiny_model

from tilth.data import Example, read, write_rows
from tilth.data.rating import rating_prompt
from tilth.errors import DataError, EngineError, RecipeError
from tilth.models import engine
from tilth.select._asking import Fitter, turns_of
from tilth.select._scoring import TurnScores, combined
from tilth.select.deita import Deita
from tilth.select.score import Score

MINI = "seedling:small"


def quiet(line: str) -> None:
    """Says nothing."""


def dialogue(*turns: str, **meta: object) -> Example:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    return Example(messages, dict(meta))  # type: ignore[arg-type]


def pool(path: Path, rows: list[tuple[str, str, object, object]]) -> str:
    write_rows(
        path,
        [Example.pair(q, a, complexity_scores=c, quality_scores=r) for q, a, c, r in rows],
    )
    return str(path)


def lines(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "selection.jsonl").read_text().splitlines()]


# --- sample scores --------------------------------------------------------------------------


def joined(c: list[float], q: list[float], combine: str = "product", turns: str = "sum") -> float:
    keys = {"complexity_scores": TurnScores([c]), "quality_scores": TurnScores([q])}
    found = combined(keys, np.array([0]), combine=combine, turns=turns, where=str)  # type: ignore
    return float(found[0])


def test_the_sample_score_by_hand() -> None:
    assert joined([2, 3], [4, 5]) == 23  # 2 x 4 + 3 x 5
    assert joined([2, 3], [4, 5], turns="mean") == 11.5
    assert joined([2, 3], [4, 5], "sum") == 14
    assert joined([2, 3], [4, 5], "sum", "mean") == 7


def test_lists_of_unequal_length_are_an_error_also_where_one_has_length_one() -> None:
    for c, q in (([2, 3], [4]), ([2], [4, 5, 6]), ([2], [])):
        with pytest.raises(DataError, match=f"{len(c)} complexity_scores and {len(q)} quality"):
            joined(c, q)


def test_rank_averages_share_ties() -> None:
    keys = {
        "complexity_scores": TurnScores([[1.0], [1.0], [5.0]]),
        "quality_scores": TurnScores([[2.0], [6.0], [4.0]]),
    }
    found = combined(keys, np.arange(3), combine="rank_average", turns="sum", where=str)
    # complexity ranks as shares: 1/4, 1/4, 1; quality: 0, 1, 1/2
    assert found.tolist() == [0.125, 0.625, 0.75]


@given(st.lists(st.tuples(st.floats(1, 6), st.floats(1, 6)), min_size=1, max_size=8))
def test_scores_are_those_of_the_definition(turns: list[tuple[float, float]]) -> None:
    c, q = [a for a, _ in turns], [b for _, b in turns]
    assert joined(c, q) == pytest.approx(sum(a * b for a, b in turns))


# --- choosing -------------------------------------------------------------------------------

ROWS = [
    ("Sow the rye in rows and say why.", "Because of the wind.", [2.0], [3.0]),
    ("How much is 2 and 3?", "5", [5.0], [5.0]),
    ("How much is 2 and 3?", "5", [1.0], [1.0]),
    ("Which pest troubles the oats?", "The aphid.", [3.0], [2.0]),
]


def test_the_highest_score_comes_first_and_ties_keep_their_order(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)
    made = Deita(pool=data, count=4, threshold=None).to(tmp_path / "out", say=quiet)
    told = lines(made.folder)
    assert [line["rank"] for line in told] == [2, 1, 4, 3]
    assert [line["score"] for line in told] == [6, 25, 1, 6]
    assert told[1]["complexity_scores"] == [5.0]
    assert told[0]["reason"] == "rank 2 of 4"
    kept = list(read(made.folder))
    assert kept[0].meta["scores"] == {"deita_product": 25.0}


def test_the_filter_drops_a_repeat_and_names_what_it_repeats(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)
    said: list[str] = []
    method = Deita(pool=data, count=4, threshold=0.999, model=MINI, pooling="mean")
    made = method.to(tmp_path / "out", say=said.append)
    told = lines(made.folder)
    assert [line["kept"] for line in told] == [True, True, False, True]
    assert (told[2]["similar_to"], told[2]["why"]) == (1, "similar")
    assert told[2]["similarity"] == pytest.approx(1)
    assert "rank 4 of 4; too similar to kept row 1" in told[2]["reason"]
    assert any("3 of the 4 rows asked for" in line for line in said), said
    assert made.manifest.metrics["too_similar"] == 1
    assert made.manifest.metrics["rows_out"] == 3


def test_it_is_similarity_and_not_distance(tmp_path: Path) -> None:
    """With the sign turned around the repeat would stay and all others go."""
    rows = [(q, a, c, [1.0]) for q, a, c, _ in ROWS]
    data = pool(tmp_path / "pool.jsonl", rows)
    high = Deita(pool=data, count=9, threshold=0.999, pooling="mean").to(
        tmp_path / "high", say=quiet
    )
    low = Deita(pool=data, count=9, threshold=-1, pooling="mean").to(tmp_path / "low", say=quiet)
    assert high.manifest.metrics["rows_out"] == 3
    assert low.manifest.metrics["rows_out"] == 1, "the lower the threshold, the fewer stay"


def test_equal_rows_leave_one_and_a_warning_with_both_numbers(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", [("Sow.", "Yes.", [n], [1]) for n in (2, 6, 3, 4)])
    said: list[str] = []
    made = Deita(pool=data, count=3, model=MINI).to(tmp_path / "out", say=said.append)
    assert [line["kept"] for line in lines(made.folder)] == [False, True, False, False]
    told = "1 of the 3 rows asked for: of 4 rows 3 have a cosine above 0.9"
    assert any(told in line for line in said), said


def test_a_single_sort_key_works(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)
    for key, order in (("complexity_scores", [1, 3, 0, 2]), ("quality_scores", [1, 0, 3, 2])):
        method = Deita(pool=data, count=4, sort_key=key, threshold=None)
        made = method.to(tmp_path / key, say=quiet)
        ranked = sorted(lines(made.folder), key=lambda line: line["rank"])
        assert [line["row"] for line in ranked] == order
    both = Deita(pool=data, sort_key="complexity_scores, quality_scores")
    assert both.sort_key == ("complexity_scores", "quality_scores")
    for wrong in ("", "a,,b", ("a", "a"), ()):
        with pytest.raises(ValidationError, match="one or several different names"):
            Deita(pool=data, sort_key=wrong)


def test_the_filter_alone_needs_no_score(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", [Example.pair(q, a) for q, a, _, _ in ROWS])
    method = Deita(
        pool=str(tmp_path / "p.jsonl"), count=4, order="random", threshold=0.999, pooling="mean"
    )
    kept = {
        tuple(line["row"] for line in lines(made.folder) if line["kept"])
        for n in range(6)
        for made in [method.to(tmp_path / str(n), seed=n, say=quiet)]
    }
    assert kept == {(0, 1, 3), (0, 2, 3)}, "of the two equal rows the first in the order stays"


def test_the_control_for_diversity_keeps_rows_near_the_mean(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)  # scores 6, 25, 1, 6: the mean is 9.5
    method = Deita(pool=data, count=4, order="random", near_mean=4.0, threshold=None)
    made = method.to(tmp_path / "out", say=quiet)
    told = lines(made.folder)
    assert [line["kept"] for line in told] == [True, False, False, True]
    assert told[1]["reason"] == "score 25, not within 4 of the mean 9.5"
    assert made.manifest.metrics["near_mean"] == {"mean": 9.5, "rows": 2}


def test_turns_are_counted_and_a_mean_does_not_favour_the_long(tmp_path: Path) -> None:
    long = dialogue("a", "b", "c", "d", complexity_scores=[2, 2], quality_scores=[2, 2])
    short = dialogue("e", "f", complexity_scores=[2.5], quality_scores=[2.5])
    write_rows(tmp_path / "p.jsonl", [long, short])
    first = {}
    for turns in ("sum", "mean"):
        method = Deita(pool=str(tmp_path / "p.jsonl"), count=1, turns=turns, threshold=None)
        made = method.to(tmp_path / turns, say=quiet)
        first[turns] = lines(made.folder)[0]["kept"]
        assert made.manifest.metrics["turns"] == {"1": 1, "2": 1}
        assert made.manifest.metrics["turns_chosen"] == {"2" if first[turns] else "1": 1}
    assert first == {"sum": True, "mean": False}


def test_an_index_is_kept_and_used_again(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)
    method = Deita(pool=data, count=2, index=str(tmp_path / "index"))
    first, again = (method.to(tmp_path / name, say=quiet) for name in ("first", "again"))
    assert first.manifest.cost["tokens_read"] > again.manifest.cost["tokens_read"] == 0
    assert first.manifest.files == again.manifest.files


# --- bad input ------------------------------------------------------------------------------


def test_rows_with_unequal_lists_are_named(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", [*ROWS, ("A", "B", [1.0, 2.0], [3.0])])
    with pytest.raises(DataError, match=r"2 complexity_scores and 1 quality_scores") as caught:
        Deita(pool=data, threshold=None).to(tmp_path / "out", say=quiet)
    assert "row 4" in str(caught.value)


@pytest.mark.parametrize("bad", [None, [], "high", [1.0, "2"], [True]])
def test_a_row_without_scores_is_named(tmp_path: Path, bad: object) -> None:
    data = pool(tmp_path / "pool.jsonl", [*ROWS, ("A", "B", bad, [3.0])])
    with pytest.raises(DataError, match="'complexity_scores' is") as caught:
        Deita(pool=data, threshold=None).to(tmp_path / "out", say=quiet)
    assert "row 4" in str(caught.value)
    assert "select.score" in str(caught.value)


def test_a_turn_that_got_no_score_leaves_its_row_out(tmp_path: Path) -> None:
    rows = [*ROWS * 3, ("A", "B", [1.0, None], [3.0, 2.0])]
    data = pool(tmp_path / "pool.jsonl", rows)
    made = Deita(pool=data, count=13, threshold=None).to(tmp_path / "out", say=quiet)
    last = lines(made.folder)[-1]
    assert (last["kept"], last["score"]) == (False, None)
    assert last["reason"].startswith("no score")


def test_a_scorer_that_no_key_uses_is_an_error(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)
    with pytest.raises(RecipeError, match="quality_scores, which is no sort_key"):
        Deita(pool=data, sort_key="complexity_scores", quality_scorer="seedling:teacher").to(
            tmp_path / "out", say=quiet
        )


def test_digits_that_are_not_one_token_are_refused(tmp_path: Path, tiny: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)
    with pytest.raises(EngineError, match="'1' is not one token"):
        Deita(pool=data, complexity_scorer=str(tiny)).to(tmp_path / "out", say=quiet)


@pytest.mark.parametrize("fault", ["nan", "zero"])
def test_embeddings_that_are_no_direction_are_an_error(
    tmp_path: Path, tiny: Path, fault: str
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] *= math.nan if fault == "nan" else 0.0
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    data = pool(tmp_path / "pool.jsonl", ROWS)
    with pytest.raises(DataError, match=r"zero or not a number: ids [0-9a-f]{16}"):
        Deita(pool=data, model=str(broken)).to(tmp_path / "out", say=quiet)


# --- scorers --------------------------------------------------------------------------------


def test_turns_are_read_with_their_replies() -> None:
    row = dialogue("a", "b", "c")
    row.messages.insert(0, {"role": "system", "content": "s"})
    assert turns_of(row) == [("a", "b"), ("c", "")]


def test_every_turn_is_scored_alone_and_written_into_the_row(tmp_path: Path) -> None:
    rows = [dialogue("Sow?", "Yes.", "Why?", "So."), dialogue("Why?", "So.")]
    write_rows(tmp_path / "p.jsonl", rows)
    made = Score(
        pool=str(tmp_path / "p.jsonl"),
        complexity_scorer="seedling:teacher",
        quality_scorer="seedling:teacher",
    ).to(tmp_path / "out", say=quiet)
    long, short = (row.meta for row in read(made.folder))
    assert [row.id for row in read(made.folder)] == [row.id for row in rows]
    for name in ("complexity_scores", "quality_scores"):
        assert [len(long[name]), len(short[name])] == [2, 1]
        assert long[name][1] == short[name][0], "a turn is scored without what stands before it"
        assert all(1 <= value <= 6 for value in long[name])
        assert made.manifest.metrics[name]["without_a_digit"] == 0
    # What select.score wrote is what select.deita would have computed itself.
    own = Deita(
        pool=str(tmp_path / "p.jsonl"),
        count=1,
        threshold=None,
        complexity_scorer="seedling:teacher",
        quality_scorer="seedling:teacher",
    )
    stored = Deita(pool=str(made.folder), count=1, threshold=None)
    scores = [
        [line["score"] for line in lines(method.to(tmp_path / name, say=quiet).folder)]
        for name, method in (("own", own), ("stored", stored))
    ]
    assert scores[0] == scores[1]


def test_the_end_of_a_prompt_is_never_cut(tmp_path: Path) -> None:
    model = engine(MINI)
    fit = Fitter(
        model, lambda query, response: rating_prompt("quality", query, response), 120, answer=1
    )
    whole = fit("Why?", "Because.")[0]["content"]
    assert (whole, fit.cut) == (rating_prompt("quality", "Why?", "Because."), 0)
    long = fit("Why is it so?", "word " * 500)[0]["content"]
    assert long.startswith(rating_prompt("quality", "Why is it so?", "word")[:70])
    assert long.endswith("\nQuality score:")
    both = fit("query " * 500, "word " * 500)[0]["content"]
    assert both.endswith("\nResponse: \nQuality score:")
    assert fit.cut == 2
    from tilth.models.room import room

    for text in (long, both):
        left = room(model, [{"role": "user", "content": text}], 120)
        assert 1 <= left < 12, "as much as fits is kept"
    with pytest.raises(EngineError, match="the prompt alone does not fit"):
        Fitter(model, lambda query, response: rating_prompt("quality", query, response), 8, 1)


@contextmanager
def shy_scorer(share: int) -> Iterator[str]:
    """An endpoint that lists no digit for every `share`-th question, and lacks the 6 in all."""
    seen = [0]
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = int(asked["messages"][-1]["content"].split("number ")[1].split()[0])
            with lock:
                seen[0] += 1
            known = [] if number % share == 0 else [(str(k), -float(k)) for k in range(1, 6)]
            top = [{"token": t, "logprob": p} for t, p in [("The", -0.1), *known]]
            choice = {"logprobs": {"content": [{"top_logprobs": top}]}, "message": {"content": "x"}}
            body = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"openai:shy@http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def test_missing_digits_are_counted_and_never_a_middle_score(tmp_path: Path) -> None:
    rows = [Example.pair(f"Say number {n} now", "Yes.") for n in range(1, 25)]
    write_rows(tmp_path / "p.jsonl", rows)
    said: list[str] = []
    with shy_scorer(12) as ref:
        method = Deita(
            pool=str(tmp_path / "p.jsonl"),
            count=24,
            complexity_scorer=ref,
            sort_key="complexity_scores",
            threshold=None,
        )
        made = method.to(tmp_path / "out", say=said.append)
        with shy_scorer(2) as shyer, pytest.raises(DataError, match="12 of 24 rows have no"):
            Deita(**{**method.model_dump(), "complexity_scorer": shyer}).to(
                tmp_path / "bad", say=quiet
            )
    told = lines(made.folder)
    assert [line["row"] for line in told if not line["kept"]] == [11, 23]
    assert all("no digit" in line["reason"] for line in told if not line["kept"])
    assert 3.0 not in [line["score"] for line in told]
    metrics = made.manifest.metrics["complexity_scores"]
    assert (metrics["without_a_digit"], metrics["digits_missing"]) == (2, 22)
    assert any("2 have no digit" in line and "22 lack some" in line for line in said), said


def test_the_cost_is_said_before(tmp_path: Path) -> None:
    data = pool(tmp_path / "pool.jsonl", ROWS)
    whole = Deita(pool=data, complexity_scorer=MINI, quality_scorer=MINI, model=MINI).estimate()
    one = Deita(pool=data, complexity_scorer=MINI, threshold=None).estimate()
    assert whole["flops"] == pytest.approx(3 * one["flops"])
    assert Deita(pool=data, threshold=None).estimate() == {}
    assert Score(pool=data, complexity_scorer=MINI).estimate() == one


# --- kills ----------------------------------------------------------------------------------

_RUN = """
import sys
from tilth.select.score import Score
pool, scorer, out = sys.argv[1:]
made = Score(pool=pool, complexity_scorer=scorer, batch_size=64).to(out, say=print)
"""


@pytest.mark.slow
def test_scoring_twenty_thousand_rows_survives_kills(tmp_path: Path) -> None:
    scorer = str(tiny_model(tmp_path / "scorer", "qwen2"))
    rows = [Example.pair(f"Row {n * 7919 % 100003} " + "x" * (n % 9), "y") for n in range(20_000)]
    write_rows(tmp_path / "pool.jsonl", rows)

    def run(out: str, stop_at: int | None = None) -> None:
        arguments = [sys.executable, "-c", _RUN, str(tmp_path / "pool.jsonl"), scorer]
        with subprocess.Popen([*arguments, str(tmp_path / out)], stdout=subprocess.PIPE) as process:
            while stop_at is not None:
                assert process.poll() is None, "it ended before it could be killed"
                caches = list(tmp_path.glob("parts.scratch/complexity.jsonl"))
                if caches and caches[0].read_bytes().count(b"\n") >= stop_at:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    return
                time.sleep(0.05)
            process.communicate()
            assert process.returncode == 0

    for stop in (2_000, 9_000, 16_000):
        run("parts", stop)
    (cache,) = tmp_path.glob("parts.scratch/complexity.jsonl")
    keys = [json.loads(line)["key"] for line in cache.read_text().splitlines()]
    assert 16_000 <= len(keys) == len(set(keys)) < 20_000
    run("parts")
    run("whole")
    made = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("parts", "whole")]
    assert made[0] == made[1]
    tokens = [
        json.loads((tmp_path / name / "manifest.json").read_text())["cost"]["tokens_read"]
        for name in ("parts", "whole")
    ]
    assert tokens[0] < tokens[1] / 2, "the last attempt read only what was missing"
