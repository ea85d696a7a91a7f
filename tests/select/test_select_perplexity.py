"""Perplexity: the losses of the model, the published windows, and a kill that costs only time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, Architecture
from transformers import AutoModelForCausalLM, AutoTokenizer

from tilth.almanac.pool import pool as almanac_pool
from tilth.data import read, write_rows
from tilth.data.example import Example
from tilth.errors import DataError, EngineError, ModelError
from tilth.models.local import LocalEngine
from tilth.select import Perplexity
from tilth.select._losses import Cutter, text_of


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    write_rows(path, almanac_pool(12, seed=3))
    return path


def kept(made: Any) -> list[str]:
    return [row.id for row in read(made.folder)]


def loss_of(folder: Path, text: str) -> float:
    """The mean loss as transformers computes it, behind the beginning-of-text token."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[start, *tokenizer(text, add_special_tokens=False).input_ids]])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_is_that_of_the_whole_sequence(
    models: dict[Architecture, Path], name: Architecture, pool: Path, tmp_path: Path
) -> None:
    made = Perplexity(pool=str(pool), count=12, model=str(models[name])).to(tmp_path / "out")
    rows = list(read(made.folder))
    losses = [row.meta["scores"]["loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    for row, loss in list(zip(rows, losses, strict=True))[:3]:
        assert loss == pytest.approx(loss_of(models[name], text_of(row.messages)), abs=2e-5)


def test_top_middle_and_lowest_are_windows_of_one_order(
    tiny: Path, pool: Path, tmp_path: Path
) -> None:
    def chosen(keep: str, count: int) -> list[str]:
        settings: dict[str, Any] = {"pool": str(pool), "count": count, "keep": keep}
        return kept(Perplexity(model=str(tiny), **settings).to(tmp_path / f"{keep}{count}"))

    order = chosen("top", 12)
    assert chosen("top", 3) == order[:3]
    assert chosen("lowest", 3) == order[::-1][:3]
    assert chosen("mid", 4) == order[3:7]  # floor(0.33 * 12) = 3
    assert chosen("mid", 11) == order[3:]  # only nine are left from there on


def test_a_window_that_is_too_small_is_said(tiny: Path, pool: Path, tmp_path: Path) -> None:
    said: list[str] = []
    method = Perplexity(pool=str(pool), count=11, keep="mid", model=str(tiny))
    method.to(tmp_path / "out", say=said.append)
    assert any("only 9 rows can be chosen, 11 were asked for" in line for line in said)


def test_over_the_answer_the_question_does_not_count(tiny: Path, tmp_path: Path) -> None:
    rows = [Example.pair(q, "the soil is dry") for q in ("When?", "When? " * 9)]
    write_rows(tmp_path / "pool.jsonl", rows)
    made = Perplexity(pool=str(tmp_path / "pool.jsonl"), count=2, over="answer", model=str(tiny))
    scores = {r.id: r.meta["scores"]["loss"] for r in read(made.to(tmp_path / "out").folder)}
    engine = LocalEngine.open(str(tiny))
    for row in rows:
        (score,) = engine.score([(f"Question: {row.prompt}\nAnswer:", f" {row.answer}")])
        assert scores[row.id] == pytest.approx(-score.mean, abs=2e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_long_texts_are_cut_to_the_context_and_counted(
    models: dict[Architecture, Path], name: Architecture, tmp_path: Path
) -> None:
    long = Example.pair("Why? " * 400, "The barley stands tall. " * 400)
    write_rows(tmp_path / "pool.jsonl", [long, Example.pair("a", "b")])
    for over in ("whole", "answer"):
        method = Perplexity(
            pool=str(tmp_path / "pool.jsonl"), count=2, over=over, model=str(models[name])
        )
        made = method.to(tmp_path / f"out-{over}")
        assert made.manifest.metrics["cut"] == 1
        assert any("cut to 256 tokens" in note for note in made.manifest.not_measured)


def test_a_cut_keeps_the_end_of_the_question_and_the_start_of_the_answer(tiny: Path) -> None:
    cutter = Cutter(48, AutoTokenizer.from_pretrained(tiny))
    ((before, text),) = cutter([("x" * 300 + "END", "START" + "y" * 300)])
    assert before.endswith("END")
    assert text.startswith("START")
    assert len(text) > len(before) > 0
    assert cutter([("a", "b")]) == [("a", "b")]
    assert cutter.cut == 1


def test_equal_rows_are_scored_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "pool.jsonl", [Example.pair("q", "same answer")] * 7)
    scored: list[int] = []
    real = LocalEngine._score

    def counting(self: LocalEngine, sequences: list) -> list:
        scored.append(len(sequences))
        return real(self, sequences)

    monkeypatch.setattr(LocalEngine, "_score", counting)
    Perplexity(pool=str(tmp_path / "pool.jsonl"), count=2, model=str(tiny)).to(tmp_path / "out")
    assert sum(scored) == 1


def test_kill_9_costs_no_row_twice(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "pool.jsonl"
    total = 1200
    write_rows(rows, (Example.pair(f"How much is {i} and {i}?", f"{i + i}.") for i in range(total)))
    method = Perplexity(pool=str(rows), count=40, model=str(tiny), batch_size=4)
    code = (
        "from tilth.select import Perplexity;"
        f"Perplexity(**{method.model_dump()!r}).to({str(tmp_path / 'out')!r})"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    cache = tmp_path / "out.scratch" / "answers.jsonl"
    while not cache.exists() or cache.read_bytes().count(b"\n") < 100:
        assert running.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = {json.loads(line)["key"] for line in cache.read_text().split("\n")[:-1]}
    assert 100 <= len(done) < total
    assert len(done) % 4 == 0, "a batch is kept whole: its rows share their last digits"

    scored: list[int] = []
    real = LocalEngine._score

    def counting(self: LocalEngine, sequences: list) -> list:
        scored.append(len(sequences))
        return real(self, sequences)

    monkeypatch.setattr(LocalEngine, "_score", counting)
    resumed = method.to(tmp_path / "out", say=lambda line: None)
    assert sum(scored) == total - len(done)
    whole = method.to(tmp_path / "whole", say=lambda line: None)
    assert resumed.manifest.files == whole.manifest.files
    assert resumed.manifest.attempts == 2


def test_what_cannot_be_scored_is_told(tmp_path: Path, tiny: Path, pool: Path) -> None:
    with pytest.raises(ModelError, match="no seedling is called"):
        Perplexity(pool=str(pool), model="seedling:tiny").to(tmp_path / "out")
    with pytest.raises(EngineError, match="cannot score"):
        Perplexity(pool=str(pool), model="openai:m@http://127.0.0.1:9/v1").to(tmp_path / "out")
    broken = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        broken.get_input_embeddings().weight.fill_(np.nan)
    broken.save_pretrained(tmp_path / "nan")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "nan")
    with pytest.raises(DataError, match="12 rows have no loss: rows 0, 1, 2, 3, 4"):
        Perplexity(pool=str(pool), model=str(tmp_path / "nan")).to(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_estimate_needs_no_model(pool: Path) -> None:
    estimate = Perplexity(pool=str(pool)).estimate()
    assert estimate["tokens_read"] > 0
    assert estimate["flops"] > estimate["tokens_read"] * 1_000_000
    assert Perplexity(pool="nowhere.jsonl").estimate() == {}
