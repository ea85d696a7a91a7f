"""Intervals and tests for scores over seeds and items.

Scores come *by seed*: one row per seed, one number per item, as an array, as a list of arrays (the
seeds may have different numbers of items) or as a mapping from seed to array, whose keys then name
the seed in errors.

Intervals are bootstrap intervals that draw seeds with replacement and, within each drawn seed,
items with replacement (Agarwal et al. 2021, arXiv:2108.13264, draw runs within tasks; drawing on
both levels carries the luck of the training seed *and* of the exam). Comparisons draw the same
seeds and items on both sides.

What such an interval is not: with few seeds it is too narrow. The spread between S seeds is
estimated from S numbers and understated by about sqrt((S - 1) / S); read five seeds as five seeds.

Axes: A arms compared (one or two), R resamples, S seeds, N items (of the longest seed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, SupportsInt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tilth._resampling import Floats, Statistic, bca_tails, chunks, left_out, row_iqm, statistics
from tilth.errors import DataError, RecipeError
from tilth.seeds import stream

__all__ = [
    "Estimate",
    "bootstrap",
    "iqm",
    "mean_interval",
    "paired_difference",
    "permutation_test",
]

Scores = ArrayLike | Sequence[ArrayLike] | Mapping[Any, ArrayLike]
Interval = Literal["percentile", "bca"]
Level = Literal["seeds", "items"]

EXACT_UNITS = 16
"""Up to this many differences all 2**n sign patterns are enumerated. Our choice."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The statistic of all scores.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Confidence level, e.g. 0.95.
        seeds: Number of seeds.
        items: Number of scores, all seeds together.
        method: How the interval was made, in words.
    """

    value: float
    low: float
    high: float
    level: float
    seeds: int
    items: int
    method: str

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval."""
        return not self.low <= value <= self.high

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def iqm(scores: ArrayLike) -> float:
    """The interquartile mean: the mean of what is left without the lowest and highest quarter.

    Of ``n`` scores ``floor(n / 4)`` are left out at each end, as ``scipy.stats.trim_mean(x, 0.25)``
    does (and with it rliable, Agarwal et al. 2021, arXiv:2108.13264).

    Example:
        >>> iqm([1, 2, 3, 4, 5, 6, 7, 8])
        4.5

    Raises:
        DataError: There are no scores, or one is not a finite number.
    """
    (row,) = _rows([np.ravel(np.asarray(scores))]).values()
    return float(row_iqm(row[None, :], np.array([row.size]))[0])


def mean_interval(scores: Scores, **options: Any) -> Estimate:
    """The mean with its bootstrap interval: :func:`bootstrap` with ``statistic="mean"``."""
    return bootstrap(scores, "mean", **options)


def bootstrap(
    scores: Scores,
    statistic: Statistic = "mean",
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    over: Sequence[Level] = ("seeds", "items"),
    interval: Interval = "percentile",
    shared_items: bool = False,
) -> Estimate:
    """A statistic of all scores with a bootstrap interval.

    With fewer than two seeds only items are drawn, and ``method`` says so.

    Args:
        scores: By seed; see the module's docstring.
        statistic: ``"mean"``, ``"iqm"`` or a function from a one-dimensional array to a number,
            called once per resample. It sees the scores of all seeds pooled.
        level: Confidence level. 0.95 is the custom.
        resamples: Bootstrap samples. 10,000: our choice, the ends then move by about 1% of the
            interval's width from one `seed` to another.
        seed: Names the random stream.
        over: What is drawn anew: seeds, items or both. What is not drawn is taken as given.
        interval: ``"percentile"``, or ``"bca"``, corrected for bias and skewness (Efron 1987,
            doi:10.1080/01621459.1987.10478410); BCa takes its acceleration from leaving out one
            seed at a time where seeds are drawn, else one item at a time.
        shared_items: Item n is the same under every seed, and is drawn for all of them at once. The
            default, items of their own for every seed, is too narrow where they are shared.

    Raises:
        DataError: A seed has no scores, or a score is not a finite number.
        RecipeError: A setting cannot be used.
    """
    plan = _Plan(statistic, level, resamples, seed, tuple(over), interval, shared_items)
    return plan.estimate([_rows(scores)])


def paired_difference(
    a: Scores,
    b: Scores,
    statistic: Statistic = "mean",
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    over: Sequence[Level] = ("seeds", "items"),
    interval: Interval = "percentile",
    shared_items: bool = False,
) -> Estimate:
    """``statistic(a) - statistic(b)`` with an interval, pairing the same seeds and items.

    Every resample draws the same seeds and items on both sides, so that what makes an item hard or
    a seed lucky for both drops out. Arguments as for :func:`bootstrap`.

    Raises:
        DataError: The sides differ in seeds or in the number of items; the message names the seed.
        RecipeError: A setting cannot be used.
    """
    plan = _Plan(statistic, level, resamples, seed, tuple(over), interval, shared_items)
    return plan.estimate(_paired(a, b))


def permutation_test(
    a: Scores,
    b: Scores,
    *,
    over: Level = "items",
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """The p-value of a paired sign-flip test of "a and b do not differ".

    If they do not, each paired difference is as likely to have the other sign. The mean difference
    is compared with those under all sign patterns where at most 16 differences are not zero, else
    under `resamples` random ones, p = (k + 1) / (R + 1) (Phipson and Smyth 2010,
    doi:10.2202/1544-6115.1585).

    Args:
        a: Scores by seed.
        b: Scores by seed, of the same seeds and items.
        over: What is exchanged: single ``"items"``, or whole ``"seeds"`` by their mean difference.
            Items answer "on these trained models"; only seeds answer "when trained again", and
            five of them cannot go below p = 2/32.
        alternative: ``"greater"`` asks for a > b.
        resamples: Random sign patterns.
        seed: Names the random stream.

    Raises:
        DataError: The sides differ in seeds or in the number of items; the message names the seed.
    """
    if resamples < 1:
        raise RecipeError(f"resamples must be at least 1, not {resamples}", where="resamples")
    rows_a, rows_b = _paired(a, b)
    differences = [rows_a[s] - rows_b[s] for s in rows_a]
    units = np.concatenate(differences)
    if over == "seeds":
        units = np.array([d.mean() for d in differences])
    units = units[units != 0]  # a zero keeps its value under either sign
    if alternative == "less":
        units = -units
    observed = units.sum()
    slack = 1e-12 * np.abs(units).sum()  # equal sums differ in their last bits

    def extreme(sums_R: Floats) -> int:
        if alternative == "two-sided":
            return int(np.count_nonzero(np.abs(sums_R) >= abs(observed) - slack))
        return int(np.count_nonzero(sums_R >= observed - slack))

    n = units.size
    if n <= EXACT_UNITS:
        patterns = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return extreme((1 - 2 * patterns) @ units) / 2**n
    rng = stream(seed, "stats", "permutation")
    hits = 0
    for size in chunks(resamples, n):
        flips = rng.integers(0, 2, size=(size, n), dtype=np.int8)
        hits += extreme((1 - 2 * flips) @ units)
    return (hits + 1) / (resamples + 1)


def _rows(scores: Scores) -> dict[Any, Floats]:
    """Scores as one checked array per seed, under the seed's name or number."""
    if isinstance(scores, Mapping):
        named = dict(scores)
    else:
        listed = list(scores) if isinstance(scores, Sequence | np.ndarray) else [scores]
        if listed and all(np.ndim(row) == 0 for row in listed):
            listed = [listed]  # one seed, given flat
        named = dict(enumerate(listed))
    if not named:
        raise DataError("there are no scores", fix="give at least one seed's scores")
    rows = {}
    for name, values in named.items():
        label = int(name) if isinstance(name, SupportsInt) else name
        row = np.asarray(values, dtype=np.float64)
        if row.ndim != 1 or row.size == 0:
            raise DataError(
                f"a seed's scores must be a list of numbers, not of shape {row.shape}",
                where=f"seed {label}",
            )
        bad = np.flatnonzero(~np.isfinite(row))
        if bad.size:
            raise DataError(
                f"a score is {row[bad[0]]}, not a finite number",
                where=f"seed {label}, item {bad[0]}",
                fix="score a failed item as 0, or leave it out on both sides",
            )
        rows[label] = row
    return rows


def _paired(a: Scores, b: Scores) -> list[dict[Any, Floats]]:
    rows_a, rows_b = _rows(a), _rows(b)
    if rows_a.keys() != rows_b.keys():
        alone = sorted(rows_a.keys() ^ rows_b.keys(), key=str)
        raise DataError(
            "the two sides do not have the same seeds",
            where=f"only one side has seed {', '.join(map(str, alone))}",
            fix="evaluate both sides with the same test seeds",
        )
    for name in rows_a:
        if rows_a[name].size != rows_b[name].size:
            raise DataError(
                f"{rows_a[name].size} items on one side and {rows_b[name].size} on the other",
                where=f"seed {name}",
                fix="evaluate both sides on the same items",
            )
    return [rows_a, {name: rows_b[name] for name in rows_a}]


@dataclass(frozen=True)
class _Plan:
    """How an interval is to be made; the fields are the arguments of :func:`bootstrap`."""

    statistic: Statistic
    level: float
    resamples: int
    seed: int
    over: tuple[str, ...]
    interval: str
    shared_items: bool

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise RecipeError(
                f"a confidence level must lie between 0 and 1, not {self.level}", where="level"
            )
        if self.resamples < 100:
            raise RecipeError(
                f"{self.resamples} resamples give no interval",
                where="resamples",
                fix="use at least 100",
            )
        if not self.over or not set(self.over) <= {"seeds", "items"}:
            raise RecipeError(
                f"cannot draw over {self.over!r}",
                where="over",
                fix='use ("seeds", "items") or one of them',
            )
        if self.interval not in {"percentile", "bca"}:
            raise RecipeError(
                f"unknown interval {self.interval!r}",
                where="interval",
                fix='use "percentile" or "bca"',
            )

    def estimate(self, arms: list[dict[Any, Floats]]) -> Estimate:
        """The estimate for one arm, or for the difference of two."""
        rows = [list(arm.values()) for arm in arms]
        sizes_S = np.array([row.size for row in rows[0]])
        seeds = sizes_S.size
        if self.shared_items and np.any(sizes_S != sizes_S[0]):
            raise DataError(
                "shared items need the same number of items under every seed",
                where=f"seed {list(arms[0])[int(np.argmax(sizes_S != sizes_S[0]))]}",
            )
        draw_seeds = "seeds" in self.over and seeds > 1
        draw_items = "items" in self.over or not draw_seeds
        scores_ASN = np.zeros((len(rows), seeds, int(sizes_S.max())))
        for a, arm in enumerate(rows):
            for s, row in enumerate(arm):
                scores_ASN[a, s, : row.size] = row
        value, drawn_R = self._draw(scores_ASN, sizes_S, draw_seeds, draw_items)
        tails = np.array([(1 - self.level) / 2, (1 + self.level) / 2])
        corrected = self.interval == "bca" and bool(drawn_R.min() < drawn_R.max())
        if corrected:
            rest = left_out(
                rows,
                self.statistic,
                whole_seeds=draw_seeds and seeds > 2,
                shared_items=self.shared_items,
            )
            tails = bca_tails(tails, drawn_R, value, rest)
        low, high = np.quantile(drawn_R, tails)
        # Two ways to add up the same scores differ in their last bits; that is no difference.
        noise = 1e-12 * float(np.abs(scores_ASN).max())
        value, low, high = (0.0 if abs(x) <= noise else float(x) for x in (value, low, high))
        what = " and ".join(["seeds"] * draw_seeds + ["items"] * draw_items)
        alone = " (only one seed)" if "seeds" in self.over and not draw_seeds else ""
        kind = "BCa" if corrected else "percentile"
        return Estimate(
            value=value,
            low=low,
            high=high,
            level=self.level,
            seeds=seeds,
            items=int(sizes_S.sum()),
            method=f"{kind} bootstrap over {what}{alone}, {self.resamples} resamples",
        )

    def _draw(
        self, scores_ASN: Floats, sizes_S: NDArray[np.int64], draw_seeds: bool, draw_items: bool
    ) -> tuple[float, Floats]:
        """The statistic of all scores, and that of every resample."""
        _, seeds, longest = scores_ASN.shape
        all_seeds, all_items = np.arange(seeds)[None, :], np.arange(longest)[None, None, :]
        (value,) = statistics(scores_ASN, sizes_S, all_seeds, all_items, self.statistic)
        rng = stream(self.seed, "stats", "bootstrap")
        parts = []
        for size in chunks(self.resamples, seeds * longest):
            seeds_RS, items_RSN = np.repeat(all_seeds, size, axis=0), all_items
            if draw_seeds:
                seeds_RS = rng.integers(0, seeds, size=(size, seeds))
            if draw_items:
                groups = 1 if self.shared_items else seeds
                limits = sizes_S[seeds_RS[:, :groups], None]
                items_RSN = rng.integers(0, limits, size=(size, groups, longest))
            parts.append(statistics(scores_ASN, sizes_S, seeds_RS, items_RSN, self.statistic))
        return float(value), np.concatenate(parts)
