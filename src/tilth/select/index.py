"""The index of a pool: every row embedded once, kept on disk, reused by every query set.

    index/
      index.json        what the embeddings were made with
      00000.npy         float32 or float16 [S, D], unit rows, read as a memory map
      00000.ids.npy     uint64 [S], the content id of each row
      00000.tokens.npy  int32 [S], tokens read for the row; 0: not embedded yet, -1: refused
      00000.why.json    why rows were refused, by their place

A row is found by its content id alone, so that neither the order of the pool nor the names or the
order of shards can mix rows up. A batch counts as done when its tokens are written, which happens
after its vectors: a killed run repeats at most the batch that was under way. A pool that has grown
gets a further shard. Rows are embedded in windows of the pool, like lengths together; which rows
share a batch depends on the window alone and not on where a run was interrupted.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tilth.artefacts import write_atomically
from tilth.data.example import Example
from tilth.errors import ArtefactError, DataError
from tilth.models.embedding import Embedder, Prepared

__all__ = ["Filled", "Index", "Store", "rows_in"]

SCHEMA = 1
MANIFEST = "index.json"
SHARD_ROWS = 1_000_000
WINDOW = 4096  # rows that are tokenised and sorted by length together
REFUSED = -1
_TOLD = 10_000  # rows from which every twentieth part is told
_MAPPED = ("", ".tokens")

Store = Literal["float32", "float16"]


@dataclass(frozen=True)
class Filled:
    """What :meth:`Index.fill` did, and where the pool's rows lie.

    Attributes:
        places: int64 [N], per row of the pool its place in the index; rows that say the same share
            a place.
        different: Rows that say something different.
        new: Different rows that this call embedded, or found nothing to embed in.
        reused: Different rows that were there.
        tokens: Tokens of all rows of the pool in the index, whenever they were read.
        refused: Row of the pool -> why it has no embedding.
    """

    places: np.ndarray
    different: int
    new: int
    reused: int
    tokens: int
    refused: Mapping[int, str]


@dataclass
class _Shard:
    """The files of one shard, open for reading and writing."""

    name: str
    vectors: np.ndarray
    ids: np.ndarray
    tokens: np.ndarray
    why: dict[int, str]


class Index:
    """A folder of embeddings; see the module's docstring.

    Args:
        folder: Where it lies; made where it is missing.
        identity: What the embeddings are made with, :attr:`Embedder.identity`.
        store: Type of the stored numbers. float16 halves the folder and moves a score by up to
            about 0.0005.

    Raises:
        ArtefactError: The folder holds an index that was made with something else, or is damaged.

    Example:
        >>> index = Index("index", reader.identity)                       # doctest: +SKIP
        >>> filled = index.fill(rows, reader)                             # doctest: +SKIP
        >>> index.rows(filled.places, Path("scratch")).shape              # doctest: +SKIP
        (20000, 128)
    """

    def __init__(
        self, folder: str | Path, identity: Mapping[str, Any], *, store: Store = "float32"
    ) -> None:
        self.folder = Path(folder)
        self.identity = {**identity, "store": store}
        self.dims, self.store = int(identity["dims"]), store
        self.folder.mkdir(parents=True, exist_ok=True)
        self._agree()
        self._shards = [self._open(name) for name in self._names()]

    def __len__(self) -> int:
        """Places, filled or not."""
        return sum(len(shard.ids) for shard in self._shards)

    @property
    def tokens(self) -> np.ndarray:
        """int32 [P], tokens read per place; 0 where it is still open, -1 where it was refused."""
        return np.concatenate([np.zeros(0, np.int32), *(shard.tokens for shard in self._shards)])

    def fill(
        self,
        rows: Sequence[Example],
        reader: Embedder,
        *,
        batch_size: int = 32,
        say: Callable[[str], None] = print,
        advance: Callable[[int], None] = lambda rows: None,
    ) -> Filled:
        """Embeds the rows that are not there yet.

        Args:
            rows: The pool; read by position.
            reader: Embeds; its identity must be that of the index.
            batch_size: Rows per batch.
            say: Is given a line now and then.
            advance: Is told how many more rows are done.

        Raises:
            DataError: An embedding is zero or not a number; the rows are named.
            ArtefactError: `reader` is not what the index was made with.
        """
        if {**reader.identity, "store": self.store} != self.identity:
            raise self._other({**reader.identity, "store": self.store})
        ids = np.fromiter((int(row.id, 16) for row in rows), np.uint64, len(rows))
        with self._locked(say):
            self._shards = [self._open(name) for name in self._names()]
            known, first = np.unique(ids, return_index=True)
            self._plan(ids[np.sort(first)])
            still = len(known) - int((self.tokens[self._places(known)] != 0).sum())
            say(f"index: {still:,} of {len(known):,} different rows are to be embedded")
            new = 0
            for shard in self._shards:
                for done in self._shard(shard, rows, (known, first), reader, batch_size):
                    new += done
                    advance(done)
                    if still >= _TOLD and new * 20 // still > (new - done) * 20 // still:
                        say(f"index: {new:,} of {still:,} rows embedded")
        places = self._places(ids)
        tokens = self.tokens[places]
        why = self._why()
        refused = {int(i): why[int(places[i])] for i in np.flatnonzero(tokens == REFUSED)}
        total = int(tokens[np.unique(places, return_index=True)[1]].clip(min=0).sum())
        reused = len(known) - new
        say(f"index: {new:,} rows are new, {reused:,} were there, {total:,} tokens in all")
        return Filled(places, len(known), new, reused, total, refused)

    def rows(self, places: np.ndarray, scratch: Path) -> np.ndarray:
        """The unit rows at `places` as ``[N, D]``, a memory map; zero where a row was refused.

        Where the places run through one shard from its beginning, that is the shard itself;
        otherwise the rows are gathered into a file.

        Args:
            places: int [N], from :attr:`Filled.places`.
            scratch: Folder for the gathered file.
        """
        if len(self._shards) == 1 and np.array_equal(places, np.arange(len(places))):
            return self._shards[0].vectors[: len(places)]
        path = scratch / "gathered.npy"
        shape = (len(places), self.dims)
        gathered = np.lib.format.open_memmap(path, mode="w+", dtype=self.store, shape=shape)
        for start in range(0, len(places), WINDOW):
            gathered[start : start + WINDOW] = self._take(places[start : start + WINDOW])
        gathered.flush()
        return np.load(path, mmap_mode="r")

    # What a shard is made of

    def _names(self) -> list[str]:
        """Shards whose three files are there; the last written is the list of ids."""
        return sorted(path.name.split(".")[0] for path in self.folder.glob("*.ids.npy"))

    def _open(self, name: str) -> _Shard:
        base = self.folder / name
        mode: Literal["r", "r+"] = "r+" if os.access(f"{base}.npy", os.W_OK) else "r"
        try:
            vectors, tokens = (np.load(f"{base}{kind}.npy", mmap_mode=mode) for kind in _MAPPED)
            shard = _Shard(name, vectors, np.load(f"{base}.ids.npy"), tokens, {})
        except (OSError, ValueError) as error:
            raise self._damaged(name, str(error)) from error
        why = Path(f"{base}.why.json")
        if why.is_file():
            shard.why.update({int(k): v for k, v in json.loads(why.read_text("utf-8")).items()})
        size = len(shard.ids)
        if vectors.shape != (size, self.dims) or tokens.shape != (size,):
            raise self._damaged(name, f"{size} ids, vectors {vectors.shape}, tokens {tokens.shape}")
        return shard

    def _plan(self, ids: np.ndarray) -> None:
        """Makes shards for the ids that have no place yet, in the order of the pool."""
        known = np.concatenate([np.zeros(0, np.uint64), *(shard.ids for shard in self._shards)])
        missing = ids[~np.isin(ids, known)]
        for start in range(0, len(missing), SHARD_ROWS):
            part = missing[start : start + SHARD_ROWS]
            number = len(self._shards)
            while (base := self.folder / f"{number:05d}").with_suffix(".ids.npy").exists():
                number += 1
            shape = (len(part), self.dims)
            np.lib.format.open_memmap(f"{base}.npy", mode="w+", dtype=self.store, shape=shape)
            np.save(f"{base}.tokens.npy", np.zeros(len(part), np.int32))
            # Written last: a shard without its ids does not exist.
            temporary = Path(f"{base}.ids.partial.npy")
            np.save(temporary, part)
            temporary.rename(f"{base}.ids.npy")
            self._shards.append(self._open(base.name))

    def _shard(
        self,
        shard: _Shard,
        rows: Sequence[Example],
        at: tuple[np.ndarray, np.ndarray],
        reader: Embedder,
        batch_size: int,
    ) -> Iterator[int]:
        """Fills what is open in a shard; yields the rows of every batch.

        Args:
            shard: The shard.
            rows: The pool.
            at: The pool's ids in ascending order, and for each a row that has it.
            reader: Embeds.
            batch_size: Rows per batch.
        """
        known, first = at
        for start in range(0, len(shard.ids), WINDOW):
            window = range(start, min(start + WINDOW, len(shard.ids)))
            if shard.tokens[window.start : window.stop].all():
                continue
            wanted = shard.ids[window.start : window.stop]
            found = np.searchsorted(known, wanted).clip(max=len(known) - 1)
            there = np.flatnonzero(known[found] == wanted)
            examples = [rows[i] for i in first[found[there]].tolist()]
            slots = (start + there).tolist()
            prepared = dict(zip(slots, reader.prepare(examples), strict=True))
            yield self._refuse(shard, prepared)
            for batch in _batches(prepared, batch_size):
                still = [slot for slot in batch if shard.tokens[slot] == 0]
                if still:
                    self._embed(shard, still, [prepared[slot] for slot in still], reader)
                    yield len(still)

    def _refuse(self, shard: _Shard, prepared: Mapping[int, Prepared]) -> int:
        bad = {s: row.refused for s, row in prepared.items() if row.refused and not shard.tokens[s]}
        if bad:
            shard.why.update(bad)
            write_atomically(self.folder / f"{shard.name}.why.json", json.dumps(shard.why))
            shard.tokens[list(bad)] = REFUSED
        return len(bad)

    def _embed(
        self, shard: _Shard, slots: list[int], rows: list[Prepared], reader: Embedder
    ) -> None:
        unit = reader.embed(rows)
        lengths = np.linalg.norm(unit, axis=1)
        broken = [slot for slot, length in zip(slots, lengths, strict=True) if not length > 0.5]
        if broken:
            named = ", ".join(f"{int(shard.ids[slot]):016x}" for slot in broken[:5])
            raise DataError(
                f"{len(broken)} rows have an embedding that is zero or not a number: ids {named}",
                where=str(self.folder),
                fix="the model is broken or overflows: try it in float32, or another one",
            )
        shard.vectors[slots] = unit
        shard.tokens[slots] = [row.tokens for row in rows]

    # Where rows lie

    def _places(self, ids: np.ndarray) -> np.ndarray:
        known = np.concatenate([shard.ids for shard in self._shards])
        order = np.argsort(known, kind="stable")
        return order[np.searchsorted(known, ids, sorter=order)]

    def _take(self, places: np.ndarray) -> np.ndarray:
        taken = np.empty((len(places), self.dims), self.store)
        start = 0
        for shard in self._shards:
            mine = (places >= start) & (places < start + len(shard.ids))
            taken[mine] = shard.vectors[places[mine] - start]
            start += len(shard.ids)
        return taken

    def _why(self) -> dict[int, str]:
        why, start = {}, 0
        for shard in self._shards:
            why.update({start + slot: told for slot, told in shard.why.items()})
            start += len(shard.ids)
        return why

    # What it was made with

    def _agree(self) -> None:
        """Compares the manifest with what is asked for, or writes it.

        Raises:
            ArtefactError: They differ, or the manifest cannot be read.
        """
        path = self.folder / MANIFEST
        if not path.is_file():
            with self._locked():
                if not path.is_file():
                    if any(self.folder.glob("*.ids.npy")):
                        raise self._damaged(MANIFEST, "it is missing")
                    body = {"schema": SCHEMA, "made_with": self.identity}
                    write_atomically(path, json.dumps(body, indent=1) + "\n")
        try:
            made_with = json.loads(path.read_text("utf-8"))["made_with"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(MANIFEST, str(error)) from error
        if made_with != self.identity:
            raise self._other(self.identity, made_with)

    def _other(
        self, asked: Mapping[str, Any], made: Mapping[str, Any] | None = None
    ) -> ArtefactError:
        made = made or self.identity
        keys = [k for k in {**made, **asked} if made.get(k) != asked.get(k)]
        told = "; ".join(f"{k}: {_short(made.get(k))}, not {_short(asked.get(k))}" for k in keys)
        return ArtefactError(
            f"this index was made with something else ({told})",
            where=str(self.folder),
            fix="name another folder for the index, or ask with the settings that it was made with",
        )

    def _damaged(self, name: str, what: str) -> ArtefactError:
        return ArtefactError(
            f"the index is damaged: {name}: {what}",
            where=str(self.folder),
            fix="remove the folder; the pool is then embedded again",
        )

    @contextmanager
    def _locked(self, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """One process at a time; the next one finds what the one before it has embedded."""
        with open(self.folder / ".lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if say is not None:
                    say(f"{self.folder}: waiting for another process that is filling this index")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def rows_in(folder: str | Path) -> int:
    """Rows of an index, from the sizes of its files; 0 where there is none."""
    sizes = [path.stat().st_size - 128 for path in Path(folder).glob("*.ids.npy")]
    return sum(sizes) // 8


def _batches(prepared: Mapping[int, Prepared], size: int) -> Iterator[list[int]]:
    """Slots of like length together; which ones does not depend on what is done already."""
    good = [slot for slot, row in prepared.items() if not row.refused]
    good.sort(key=lambda slot: (-prepared[slot].tokens, slot))
    for start in range(0, len(good), size):
        yield good[start : start + size]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}..."
