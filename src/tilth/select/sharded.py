"""Targeted selection from shards that many machines read: Ray Data over shards, one exact merge.

Every shard gives its best rows with their canonical scores, which depend on the rows alone; the
best rows of all shards are among these. The order is the one of :mod:`tilth.select.targeted`,
whichever machine reads which shard, and when, and however often a worker has to be replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.errors import DataError, MissingExtra
from tilth.select._best import Best, best_rows, merged
from tilth.select._vectors import Vectors
from tilth.select.targeted import Order, Rule, similarity_for

if TYPE_CHECKING:
    import ray

    from tilth.select._similarity import Similarity

__all__ = ["ShardedOrder"]


class ShardedOrder(Order):
    """The order of a pool in shards, with the work shared out by Ray Data.

    Uses the cluster that the process is connected to (``ray.init``), else starts one on this
    machine. A task whose worker dies is carried out again by another.

    Args:
        queries: float [Q, d], unit rows.
        shards: ``.npy`` files of float [n, d], unit rows, under paths that every machine can read;
            their rows are counted through in this order.
        tasks: A label per query; ``None``: every query is a task of its own.
        rule: See :func:`~tilth.select.targeted.round_robin` and its neighbours.
        depth: See :class:`~tilth.select.targeted.Order`.

    Raises:
        MissingExtra: Ray is not installed.
        DataError: As for :class:`~tilth.select.targeted.TargetedOrder`, and where a shard cannot
            be read.

    Example:
        >>> order = ShardedOrder(queries, sorted(Path("index").glob("*.npy")))  # doctest: +SKIP
        >>> order.first(10_000).rows  # doctest: +SKIP
    """

    def __init__(
        self,
        queries: np.ndarray,
        shards: Iterable[str | PathLike[str]],
        *,
        tasks: Sequence[str] | None = None,
        rule: Rule = "round_robin",
        depth: int | None = None,
    ) -> None:
        try:
            import ray.data
        except ImportError as error:
            raise MissingExtra.of("ray", "ray") from error
        self._ray = ray
        paths = [fspath(path) for path in shards]
        arrays = [_mapped(path) for path in paths]  # nothing but their heads is read here
        whole = Vectors(arrays, "pool")
        self._shards = [
            {"path": path, "start": start}
            for path, start, array in zip(paths, whole.starts, arrays, strict=True)
            if len(array)
        ]
        super().__init__(similarity_for(queries, tasks, rule, whole.dimensions), len(whole), depth)

    def _best(self, depth: int) -> Best:
        look_up = partial(_best_of_shard, similarity=self._ray.put(self._similarity), depth=depth)
        shape = self._similarity.groups, -1
        found = self._ray.data.from_items(self._shards, override_num_blocks=len(self._shards)).map(
            look_up
        )
        parts = list(found.iter_rows())
        broken = [DataError(*row["broken"]) for row in parts if row["broken"][0]]
        if broken:
            raise DataError.joined(broken)
        return merged(
            [
                Best(
                    row["rows"].reshape(shape),
                    row["scores"].reshape(shape),
                    row["queries"].reshape(shape),
                    stretched=int(row["stretched"]),
                )
                for row in parts
            ],
            depth,
        )


def _best_of_shard(
    shard: dict[str, Any], similarity: ray.ObjectRef[Similarity], depth: int
) -> dict[str, Any]:
    """The best rows of one shard, or what is wrong with its rows, as the columns of one row."""
    import ray

    pool = Vectors(_mapped(shard["path"]), "pool", shard["start"])
    broken = ["", "", ""]
    try:
        best = best_rows(ray.get(similarity), pool, depth)
    except DataError as error:  # an error that crosses Ray loses its type
        broken = [error.problem, shard["path"], error.fix]
        nothing = np.zeros((1, 0))
        best = Best(nothing.astype(np.int64), nothing, nothing.astype(np.int64))
    return {
        "rows": best.rows.ravel(),
        "scores": best.scores.ravel(),
        "queries": best.queries.ravel(),
        "stretched": best.stretched,
        "broken": broken,
    }


def _mapped(path: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the shard cannot be read: {error}", where=path, fix="give .npy files of numbers"
        ) from error
