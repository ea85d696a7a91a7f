"""The arithmetic behind :mod:`tilth.stats`: drawing, statistics per resample, BCa.

Axes: A arms compared (one or two), R resamples, S seeds, N items (of the longest seed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilth.errors import RecipeError

__all__ = ["Floats", "Statistic", "bca_tails", "chunks", "left_out", "row_iqm", "statistics"]

Floats = NDArray[np.float64]
Statistic = Literal["mean", "iqm"] | Callable[[Floats], float]

CHUNK = 2**21
"""Numbers drawn at a time: 16 MiB of scores and as much of indices. Our choice."""


def chunks(total: int, numbers_each: int) -> Iterator[int]:
    """Sizes that add up to `total`, so that a chunk holds about :data:`CHUNK` numbers."""
    size = max(1, CHUNK // max(1, numbers_each))
    for start in range(0, total, size):
        yield min(size, total - start)


def statistics(
    scores_ASN: Floats,
    sizes_S: NDArray[np.int64],
    seeds_RS: NDArray[np.int64],
    items_RSN: NDArray[np.int64],
    statistic: Statistic,
) -> Floats:
    """The statistic per resample; of the first arm less that of the second, if there are two."""
    counts_RS = sizes_S[seeds_RS]
    real = np.arange(scores_ASN.shape[2]) < counts_RS[:, :, None]
    ragged = not real.all()
    found = []
    for scores_SN in scores_ASN:
        drawn = scores_SN[seeds_RS[:, :, None], items_RSN]
        if ragged:
            drawn = np.where(real, drawn, 0.0 if statistic == "mean" else np.inf)
        pooled = drawn.reshape(len(drawn), -1)
        counts_R = counts_RS.sum(axis=1)
        if statistic == "mean":
            found.append(pooled.sum(axis=1) / counts_R)
        elif statistic == "iqm":
            found.append(row_iqm(pooled, counts_R))
        elif callable(statistic):
            found.append(
                np.array([statistic(row[np.isfinite(row)] if ragged else row) for row in pooled])
            )
        else:
            raise RecipeError(
                f"unknown statistic {statistic!r}", fix='use "mean", "iqm" or a function'
            )
    return found[0] - found[1] if len(found) == 2 else found[0]


def row_iqm(pooled: Floats, counts_R: NDArray[np.int64]) -> Floats:
    """Row-wise interquartile means; beyond ``counts_R`` a row is filled with infinity."""
    ordered = np.sort(pooled, axis=1)
    cut = counts_R // 4
    place = np.arange(ordered.shape[1])
    kept = (place >= cut[:, None]) & (place < (counts_R - cut)[:, None])
    return np.where(kept, ordered, 0.0).sum(axis=1) / kept.sum(axis=1)


def left_out(
    arms: Sequence[list[Floats]], statistic: Statistic, *, whole_seeds: bool, shared_items: bool
) -> Floats:
    """The statistic without each seed, or without each item, in turn."""

    def of(rows: list[Floats]) -> float:
        pooled = np.concatenate(rows)
        if callable(statistic):
            return float(statistic(pooled))
        return (
            float(pooled.mean())
            if statistic == "mean"
            else float(row_iqm(pooled[None], np.array([pooled.size]))[0])
        )

    first = arms[0]
    cuts: list[list[tuple[int, int | None]]]
    if whole_seeds:
        cuts = [[(s, None)] for s in range(len(first))]
    elif shared_items:
        cuts = [[(s, n) for s in range(len(first))] for n in range(first[0].size)]
    else:
        cuts = [[(s, n)] for s, row in enumerate(first) for n in range(row.size)]
    values = []
    for cut in cuts:
        sides = []
        for rows in arms:
            rest = list(rows)
            for s, n in cut:
                rest[s] = rest[s][:0] if n is None else np.delete(rest[s], n)
            sides.append(of(rest))
        values.append(sides[0] - sides[1] if len(sides) == 2 else sides[0])
    return np.array(values)


def bca_tails(tails: Floats, drawn_R: Floats, value: float, left_out: Floats) -> Floats:
    """The quantiles of the resamples that bound the BCa interval (Efron 1987, equation 2.3)."""
    normal = NormalDist()
    below = (np.mean(drawn_R < value) + np.mean(drawn_R <= value)) / 2
    edge = 0.5 / drawn_R.size  # all resamples on one side: as far as this many can tell
    bias = normal.inv_cdf(float(np.clip(below, edge, 1 - edge)))
    centred = left_out.mean() - left_out
    spread = float(np.sum(centred**2)) ** 1.5
    acceleration = float(np.sum(centred**3)) / (6 * spread) if spread else 0.0
    found = []
    for tail in tails:
        shifted = bias + normal.inv_cdf(float(tail))
        found.append(normal.cdf(bias + shifted / max(1 - acceleration * shifted, math.ulp(1.0))))
    return np.array(found)
