"""Mixing sources by weight, with exact totals.

The largest-remainder method gives every source the whole part of ``total * weight`` and the rows
that are left over to the largest remainders, so that the counts always add up. A source that
cannot give its share gives all it may, and the others share the rest by their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import overload

import numpy as np

from tilth.data.example import Example
from tilth.errors import DataError
from tilth.seeds import stream

__all__ = ["Mixture", "allocate", "mix"]


def allocate(
    weights: Mapping[str, float], total: int, limits: Mapping[str, int] | None = None
) -> dict[str, int]:
    """How many rows each source gives, exactly `total` together.

    Args:
        weights: A non-negative weight per source; only their ratios count.
        total: Rows of the mixture.
        limits: Most rows that a source may give; a source without a limit may give any number.

    Raises:
        DataError: A weight is negative or not finite, or the limits allow fewer than `total` rows.

    Example:
        >>> allocate({"facts": 1, "sums": 1, "code": 1}, 100)
        {'facts': 34, 'sums': 33, 'code': 33}
        >>> allocate({"facts": 1, "sums": 1, "code": 2}, 100, {"code": 20})
        {'facts': 40, 'sums': 40, 'code': 20}
    """
    limits = limits or {}
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise DataError(f"the weight {weight} is not usable", where=f"weights.{name}")
    if total < 0:
        raise DataError(f"a mixture of {total} rows", where="total", fix="choose 0 or more")
    open_ = {name: Fraction(weight) for name, weight in weights.items() if weight > 0}
    counts = dict.fromkeys(weights, 0)
    left = total
    while open_ and left:
        whole = sum(open_.values())
        full = [n for n, w in open_.items() if n in limits and left * w / whole >= limits[n]]
        if not full:
            counts.update(_shares(open_, left))
            return counts
        for name in full:
            counts[name] = limits[name]
            del open_[name]
        left = total - sum(counts.values())
    if left:
        raise DataError(
            f"the sources can give {total - left:,} rows, and the mixture asks for {total:,}",
            where="total",
            fix="ask for fewer rows, raise the caps, or let rows repeat",
        )
    return counts


def _shares(weights: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Largest remainders; of equal ones the source that was named first."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: math.floor(share) for name, share in exact.items()}
    order = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


class Mixture(Sequence[Example]):
    """Rows of several sources in one order; holds positions, not rows.

    Attributes:
        counts: Rows that each source gives.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Example]],
        counts: dict[str, int],
        which: np.ndarray,
        where: np.ndarray,
    ) -> None:
        self.counts = counts
        self._names = list(sources)
        self._sources = list(sources.values())
        self._which = which
        self._where = where

    def __len__(self) -> int:
        return len(self._which)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        which = int(self._which[index])
        example = self._sources[which][int(self._where[index])]
        return replace(example, meta={**example.meta, "mixed_from": self._names[which]})


def mix(
    sources: Mapping[str, Sequence[Example]],
    total: int,
    *,
    seed: int,
    weights: Mapping[str, float] | None = None,
    caps: Mapping[str, int] | None = None,
    repeat: int = 1,
) -> Mixture:
    """A shuffled mixture of exactly `total` rows; the same seed gives the same rows in order.

    A source's rows are drawn without replacement; adding a source does not change which rows the
    others draw. Every row carries ``meta["mixed_from"]``.

    Args:
        sources: The rows of every source, by name.
        total: Rows of the mixture.
        seed: Names the random streams.
        weights: A weight per source; by default the sizes of the sources.
        caps: Most rows that a source may give.
        repeat: How often one row may be used; further passes over a source begin once it has
            been used up.

    Raises:
        DataError: Unknown names in `weights` or `caps`, or too few rows.

    Example:
        >>> pool = {name: [Example.pair(f"{name} {i}", "ok") for i in range(9)] for name in "ab"}
        >>> mix(pool, 8, seed=0, weights={"a": 3, "b": 1}).counts
        {'a': 6, 'b': 2}
    """
    sizes = {name: len(rows) for name, rows in sources.items()}
    weights, caps = dict(sizes if weights is None else weights), dict(caps or {})
    for label, given in (("weights", weights), ("caps", caps)):
        if strange := sorted(set(given) - set(sources)):
            raise DataError(
                f"there is no source named {strange[0]!r}",
                where=label,
                fix=f"the sources are {', '.join(sources)}",
            )
    if silent := sorted(set(sources) - set(weights)):
        raise DataError(f"the source {silent[0]!r} has no weight", where="weights", fix="give 0")
    if repeat < 1 or any(cap < 0 for cap in caps.values()):
        raise DataError("caps are 0 or more, and repeat 1 or more", where="caps, repeat")
    limits = {n: min(size * repeat, caps.get(n, size * repeat)) for n, size in sizes.items()}
    counts = allocate({name: weights[name] for name in sources}, total, limits)
    which, where = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for place, (name, count) in enumerate(counts.items()):
        draw = stream(seed, "mix", name)
        passes = [draw.permutation(sizes[name]) for _ in range(-(-count // max(sizes[name], 1)))]
        drawn = np.concatenate([np.empty(0, np.int64), *passes])[:count]
        which.append(np.full(count, place))
        where.append(drawn)
    order = stream(seed, "mix order").permutation(total)
    return Mixture(sources, counts, np.concatenate(which)[order], np.concatenate(where)[order])
