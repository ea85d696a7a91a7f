"""The index: embedded once, keyed by content, resumed after a kill, refused where it misfits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_model

from tilth.almanac.pool import pool
from tilth.data import Example, Rows, read, write_rows
from tilth.errors import ArtefactError, DataError
from tilth.models.embedding import Embedder, Prepared, embedder
from tilth.select import index as module
from tilth.select.index import Index, rows_in


class Counting:
    """An embedder that notes every row that it embeds."""

    def __init__(self, reader: Embedder) -> None:
        self.reader, self.ledger = reader, reader.ledger
        self.identity, self.dims = reader.identity, reader.dims
        self.embedded: list[Prepared] = []
        self.stop_after = 10**9

    def prepare(self, rows, *, query=False):
        return self.reader.prepare(rows, query=query)

    def embed(self, rows):
        if len(self.embedded) >= self.stop_after:
            raise KeyboardInterrupt
        self.embedded += rows
        return self.reader.embed(rows)


def quiet(line: str) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("pool")
    write_rows(folder / "pool.jsonl", pool(120, noisy=0.1))
    return read(folder / "pool.jsonl")


@pytest.fixture
def reader(tiny: Path) -> Counting:
    return Counting(embedder(str(tiny), max_length=128))


def made(folder: Path, rows, reader, **options):
    index = Index(folder / "index", reader.identity)
    filled = index.fill(rows, reader, say=quiet, **options)
    folder.mkdir(exist_ok=True)
    return index, filled, np.array(index.rows(filled.places, folder))


def test_rows_lie_where_their_content_says(tmp_path, rows, reader) -> None:
    index, filled, vectors = made(tmp_path, rows, reader, batch_size=7)
    good = [i for i in range(len(rows)) if i not in filled.refused]
    prepared = reader.prepare([rows[i] for i in good])
    for i, row in zip(good, prepared, strict=True):
        np.testing.assert_allclose(vectors[i], reader.reader.embed([row])[0], atol=1e-5)
    assert filled.tokens == int(index.tokens[index.tokens > 0].sum())
    assert filled.different == len({row.id for row in rows}) == filled.new
    assert rows_in(tmp_path / "index") == filled.different


def test_the_order_of_the_pool_does_not_matter(tmp_path, rows, reader) -> None:
    _, _, vectors = made(tmp_path, rows, reader)
    order = np.random.default_rng(0).permutation(len(rows))
    before = len(reader.embedded)
    _, filled, turned = made(tmp_path, rows.select(order), reader)
    np.testing.assert_array_equal(turned, vectors[order])
    assert (filled.new, len(reader.embedded)) == (0, before)


def test_the_names_of_shards_do_not_matter(tmp_path, rows, reader, monkeypatch) -> None:
    _, _, whole = made(tmp_path / "a", rows, reader)
    monkeypatch.setattr(module, "SHARD_ROWS", 10)
    index, _, parts = made(tmp_path / "b", rows, reader)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    names = sorted({path.name.split(".")[0] for path in index.folder.glob("*.npy")})
    assert len(names) > 10
    for new, old in zip(("2", "10", "z"), names[:3], strict=True):  # 10 sorts before 2 as text
        for path in list(index.folder.glob(f"{old}.*")):
            path.rename(path.with_name(path.name.replace(old, new, 1)))
    before = len(reader.embedded)
    _, filled, renamed = made(tmp_path / "b", rows, reader)
    np.testing.assert_array_equal(renamed, parts)
    assert (filled.new, len(reader.embedded)) == (0, before)


def test_a_removed_shard_is_made_again_and_harms_no_other(tmp_path, rows, reader, monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 50)
    index, _, vectors = made(tmp_path, rows, reader)
    for path in index.folder.glob("00000.*"):
        path.unlink()
    _, filled, again = made(tmp_path, rows, reader)
    np.testing.assert_allclose(again, vectors, atol=1e-5)
    assert filled.new == 50


def test_a_pool_that_has_grown_is_added_to(tmp_path, rows, reader) -> None:
    _, first, _ = made(tmp_path, rows.select(range(70)), reader)
    before = len(reader.embedded)
    index, second, vectors = made(tmp_path, rows, reader)
    assert second.reused == first.different
    assert len(reader.embedded) - before <= second.new == second.different - first.different
    _, _, fresh = made(tmp_path / "fresh", rows, reader)
    np.testing.assert_allclose(vectors, fresh, atol=1e-5)
    assert isinstance(index.rows(second.places, tmp_path), np.memmap)


def test_an_interrupted_index_goes_on_with_the_same_numbers(tmp_path, rows, reader) -> None:
    _, whole, vectors = made(tmp_path / "whole", rows, reader, batch_size=8)
    tokens = reader.ledger.tokens_read
    other = Counting(embedder(str(reader.reader.reference), max_length=128))
    for stop in (16, 40, 72):
        other.stop_after = stop
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "parts", rows, other, batch_size=8)
    other.stop_after = 10**9
    _, filled, resumed = made(tmp_path / "parts", rows, other, batch_size=8)
    np.testing.assert_array_equal(resumed, vectors)
    assert other.ledger.tokens_read == tokens, "no row was embedded twice"
    assert filled.tokens == whole.tokens
    assert len(other.embedded) == whole.different - len({rows[i].id for i in whole.refused})


def test_rows_without_an_answer_are_told(tmp_path, reader) -> None:
    long = Example.pair("word " * 200, "It is cut away.")
    rows = [Example.pair("Say hi.", "Hi."), long, Example.pair("Say ho.", "Ho.")]
    for _ in range(2):  # made, and found
        _, filled, vectors = made(tmp_path, rows, reader)
        assert filled.refused == {1: "nothing of its answer lies in the first 128 tokens"}
        assert not vectors[1].any()
        assert filled.tokens == sum(p.tokens for p in reader.prepare(rows))


def test_an_index_of_something_else_is_refused(tmp_path, tiny, rows, reader) -> None:
    made(tmp_path, rows.select(range(3)), reader)
    folder = tmp_path / "index"
    other = tiny_model(tmp_path / "other", "llama", seed=9)
    for reader_now, word in (
        (embedder(str(tiny), max_length=128, pooling="mean"), "pooling: weighted, not mean"),
        (embedder(str(other), max_length=128), "model: "),
        (embedder(str(tiny), max_length=64), "max_length: 128, not 64"),
        (embedder(str(tiny), max_length=128, template="own"), "template: "),
    ):
        with pytest.raises(ArtefactError, match="made with something else") as caught:
            Index(folder, reader_now.identity)
        assert word in caught.value.problem
    with pytest.raises(ArtefactError, match="store: float32, not float16"):
        Index(folder, reader.identity, store="float16")
    with pytest.raises(ArtefactError, match="made with something else"):
        Index(folder, reader.identity).fill(rows, embedder(str(other)), say=quiet)


def test_half_precision_is_near(tmp_path, rows, reader) -> None:
    _, _, whole = made(tmp_path / "a", rows, reader)
    index = Index(tmp_path / "b", reader.identity, store="float16")
    half = index.rows(index.fill(rows, reader, say=quiet).places, tmp_path)
    assert half.dtype == np.float16
    np.testing.assert_allclose(np.array(half, np.float32), whole, atol=5e-4)


@pytest.mark.parametrize("broken", [0.0, np.nan])
def test_a_broken_embedding_names_the_rows(tmp_path, rows, reader, broken) -> None:
    reader.embed = lambda batch: np.full((len(batch), reader.dims), broken, np.float32)
    with pytest.raises(DataError, match="zero or not a number: ids ") as caught:
        made(tmp_path, rows.select(range(3)), reader)
    assert rows[0].id in caught.value.problem


def test_damage_is_named(tmp_path, rows, reader) -> None:
    index, _, _ = made(tmp_path, rows, reader)
    np.save(index.folder / "00000.ids.npy", np.arange(3, dtype=np.uint64))
    with pytest.raises(ArtefactError, match="the index is damaged: 00000: 3 ids"):
        Index(index.folder, reader.identity)
    (index.folder / "00000.tokens.npy").write_bytes(b"nothing")
    with pytest.raises(ArtefactError, match="the index is damaged: 00000"):
        Index(index.folder, reader.identity)
    (index.folder / "index.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"the index is damaged: index\.json"):
        Index(index.folder, reader.identity)
    (index.folder / "index.json").unlink()
    with pytest.raises(ArtefactError, match="it is missing"):
        Index(index.folder, reader.identity)


def test_a_finished_index_can_be_read_only(tmp_path, rows, reader) -> None:
    index, _, vectors = made(tmp_path, rows, reader)
    for path in index.folder.glob("*.npy"):
        path.chmod(0o444)
    _, filled, again = made(tmp_path, rows, reader)
    np.testing.assert_array_equal(again, vectors)
    assert filled.new == 0


SCRIPT = textwrap.dedent(
    """
    import json, sys
    from tilth.data import read
    from tilth.models.embedding import embedder
    from tilth.select.index import Index

    model, pool, folder = sys.argv[1:]
    reader = embedder(model, max_length=64)
    index = Index(folder, reader.identity)
    print("open", flush=True)
    filled = index.fill(read(pool), reader, batch_size=16)
    print(json.dumps({"read": reader.ledger.tokens_read, "new": filled.new,
                      "tokens": filled.tokens, "different": filled.different}))
    """
)


def settled(index: Path) -> tuple[int, int]:
    """Rows of an index that are done, and their tokens."""
    found = [np.load(path) for path in index.glob("*.tokens.npy") if path.stat().st_size]
    return sum(int((t != 0).sum()) for t in found), sum(int(t.clip(min=0).sum()) for t in found)


@pytest.mark.slow
def test_no_row_is_embedded_twice_through_three_kills(tmp_path: Path) -> None:
    folder, count, kills = tmp_path, 20_000, 3
    model = tiny_model(folder / "model", "llama", hidden=32)
    write_rows(folder / "pool.jsonl", pool(count, noisy=0.05))
    (folder / "run.py").write_text(SCRIPT)
    command = [sys.executable, folder / "run.py", model, folder / "pool.jsonl", folder / "index"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done, tokens = 0, 0
    for kill in range(1, kills + 1):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            until = count * kill // (kills + 2)
            while settled(folder / "index")[0] < until and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        before, (done, tokens) = done, settled(folder / "index")
        assert before < done < count * 0.9, "the test needs some rows between two kills, and after"
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["new"] == told["different"] - done, "a row was embedded twice"
    assert told["read"] == told["tokens"] - tokens, "a token was read twice"
    assert settled(folder / "index") == (told["different"], told["tokens"])
