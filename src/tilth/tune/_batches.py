"""Which rows form a batch, and in which order: plain, grouped by length, or packed.

The order of an epoch follows from the seed and the epoch's number alone, so that the state of the
sampler is three numbers and a run can be continued in the middle of an epoch.

Axes: B rows of a batch, T positions.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Sampler

from tilth.seeds import stream
from tilth.tune._corpus import IGNORED, Corpus

__all__ = ["Batching", "Collator", "Order", "pack"]

Batching = Literal["grouped", "packed", "plain"]

POOL = 50
"""Batches whose rows are sorted together; the value of transformers' length-grouped sampler.
Sorting the whole epoch would leave no chance in who meets whom."""


def pack(lengths: np.ndarray, capacity: int) -> list[np.ndarray]:
    """Rows joined into bins of at most `capacity` tokens, best-fit decreasing.

    Each row goes, longest first, into the fullest bin that still has room (Ding et al. 2024,
    "Fewer Truncations Improve Language Modeling", arXiv:2404.10830); no row is ever cut.

    Args:
        lengths: Tokens of each row; none above `capacity`.
        capacity: Tokens of a bin.

    Returns:
        Row numbers of each bin, ascending within a bin.
    """
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # heaps of bins, by room left
    occupied = np.zeros(capacity + 1, dtype=bool)
    for row in np.argsort(-lengths, kind="stable"):
        need = int(lengths[row])
        room = need + int(np.argmax(occupied[need:]))
        if occupied[room]:
            chosen = heapq.heappop(by_room[room])
            occupied[room] = bool(by_room[room])
        else:
            room, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(int(row))
        heapq.heappush(by_room[room - need], chosen)
        occupied[room - need] = True
    return [np.sort(np.asarray(rows, dtype=np.int64)) for rows in bins]


class Order(Sampler[list[int]]):
    """The batches of each epoch, as numbers of items (rows, or bins of packed rows).

    Attributes:
        items: Row numbers of each item.
        epoch: The epoch whose order is drawn; set by :meth:`set_epoch`.
        batch_size: Items of a batch; only the last batch of an epoch may have fewer.
        drop_last: Always False: every row is trained on in every epoch.
    """

    drop_last = False

    def __init__(
        self, lengths: np.ndarray, *, batch_size: int, batching: Batching, capacity: int, seed: int
    ) -> None:
        self.batch_size = batch_size
        self.batching = batching
        self.seed = seed
        self.epoch = 0
        if batching == "packed":
            self.items = pack(lengths, capacity)
        else:
            self.items = [np.array([row]) for row in range(len(lengths))]
        self._lengths = np.array([lengths[rows].sum() for rows in self.items])

    def __len__(self) -> int:
        return math.ceil(len(self.items) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.of_epoch(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration draws."""
        self.epoch = epoch

    @cached_property
    def fingerprint(self) -> dict[str, int | str]:
        """What the order of every epoch follows from; the same for equal orders."""
        first = np.concatenate([self.items[i] for batch in self.of_epoch(0) for i in batch])
        digest = hashlib.sha256(first.astype(np.int64).tobytes()).hexdigest()
        return {
            "seed": self.seed,
            "batching": self.batching,
            "batch_size": self.batch_size,
            "first_epoch": digest,
        }

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch, in order."""
        rng = stream(self.seed, "order", epoch)
        order = rng.permutation(len(self.items))
        if self.batching == "grouped":
            order = self._sorted_within_pools(order)
        size = self.batch_size
        batches = [order[i : i + size].tolist() for i in range(0, len(order), size)]
        if self.batching == "grouped":
            whole = len(order) // size  # a short batch stays last, also for sharded loaders
            batches = [batches[i] for i in rng.permutation(whole)] + batches[whole:]
        return batches

    def _sorted_within_pools(self, order: np.ndarray) -> np.ndarray:
        """`order` with the rows of each pool sorted by length, longest first."""
        pool = POOL * self.batch_size
        parts = [order[i : i + pool] for i in range(0, len(order), pool)]
        return np.concatenate([p[np.argsort(-self._lengths[p], kind="stable")] for p in parts])


class Collator:
    """Copies the rows of a batch into tensors just as long as its longest row.

    There is no attention mask: padding stands on the right, where no token before it can see it in
    a causal model. Rows that share a line of the tensor carry positions that begin anew with each,
    by which the model keeps them apart.

    Args:
        corpus: The rows.
        order: The items that batches are made of.
        pad: The token that fills a line.
        fold: Put short rows of a batch one after another into one line instead of padding each to
            the longest. It changes nothing but the time, in a model that keeps them apart.
    """

    def __init__(self, corpus: Corpus, order: Order, *, pad: int, fold: bool = False) -> None:
        self.corpus = corpus
        self.items = order.items
        self.pad = pad
        self.fold = fold

    def __call__(self, chosen: list[int]) -> dict[str, torch.Tensor | int]:
        """The batch of the items `chosen`.

        Returns:
            ``input_ids`` and ``labels`` int64 ``[B, T]`` (a label belongs to the position that
            must predict it), ``position_ids`` ``[B, T]`` where rows share a line, and ``tokens``,
            the number of tokens without padding.
        """
        lines = self._lines(chosen)
        starts, lengths = self.corpus.starts, self.corpus.lengths
        shape = (len(lines), max(int(lengths[rows].sum()) for rows in lines))
        ids_BT = np.full(shape, self.pad, dtype=np.int64)
        labels_BT = np.full(shape, IGNORED, dtype=np.int64)
        positions_BT = np.tile(np.arange(shape[1]), (shape[0], 1))
        tokens = 0
        for b, rows in enumerate(lines):
            end = 0
            for row in rows:
                begin, end = end, end + int(lengths[row])
                span = slice(starts[row], starts[row + 1])
                ids_BT[b, begin:end] = self.corpus.tokens[span]
                labels_BT[b, begin:end] = self.corpus.labels[span]
                positions_BT[b, begin:] -= positions_BT[b, begin]
            tokens += end
        batch: dict[str, torch.Tensor | int] = {
            "input_ids": torch.from_numpy(ids_BT),
            "labels": torch.from_numpy(labels_BT),
            "tokens": tokens,
        }
        if any(len(rows) > 1 for rows in lines):
            batch["position_ids"] = torch.from_numpy(positions_BT)
        return batch

    def _lines(self, chosen: list[int]) -> list[np.ndarray]:
        """The rows of each line of the tensor."""
        items = [self.items[i] for i in chosen]
        if not self.fold:
            return items
        rows = np.concatenate(items)
        lengths = self.corpus.lengths[rows]
        return [rows[members] for members in pack(lengths, int(lengths.max()))]
