"""What a refusing model is measured by. Axes: N questions.

Trust is a number per question, higher where the model should rather answer: p_sure, p_predict, a
mixture, or minus an entropy. Nothing here knows how it came about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tilth.errors import DataError
from tilth.stats import Estimate, bootstrap

__all__ = [
    "Rule",
    "area_under_risk",
    "average_precision",
    "calibration_error",
    "choose_threshold",
    "estimate",
    "risk_coverage",
]

Rule = Literal["balanced", "coverage", "risk"]
Floats = NDArray[np.float64]

BINS = 10
"""Equal-width bins of the calibration error (our choice; the paper's number is unverified)."""


def average_precision(trust: ArrayLike, right: ArrayLike) -> float:
    """``sum over n of (R_n - R_(n-1)) P_n`` along falling trust; right answers are the positives.

    Equal trust is one step, as in ``sklearn.metrics.average_precision_score``. 0 where nothing is
    right.

    Example:
        >>> average_precision([0.9, 0.8, 0.1], [1, 0, 1])
        0.8333333333333333
    """
    trust_N, right_N = np.asarray(trust, float), np.asarray(right, float)
    if not right_N.any():
        return 0.0
    order = np.argsort(-trust_N, kind="stable")
    trust_N, right_N = trust_N[order], right_N[order]
    last = np.append(np.flatnonzero(np.diff(trust_N)), len(trust_N) - 1)
    hits = np.cumsum(right_N)[last]
    steps = np.diff(np.concatenate([[0.0], hits / hits[-1]]))
    return float((steps * hits / (last + 1)).sum())


def calibration_error(probability: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """``sum over bins of |bin| / N * |share right - mean probability|``, bins of equal width.

    Example:
        >>> calibration_error([0.95, 0.95], [1, 0])
        0.45
    """
    p_N, right_N = np.asarray(probability, float), np.asarray(right, float)
    bin_N = np.minimum((p_N * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_N, right_N - p_N, bins)
    return float(np.abs(gaps).sum() / len(p_N))


def risk_coverage(trust: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The curve of all thresholds, from the least coverage to all questions answered.

    Returns:
        Thresholds (answer where trust is at least that), coverage, and risk: the share of wrong
        answers among those given.
    """
    trust_N, right_N = np.asarray(trust, float), np.asarray(right, float)
    order = np.argsort(-trust_N, kind="stable")
    trust_N, right_N = trust_N[order], right_N[order]
    last = np.append(np.flatnonzero(np.diff(trust_N)), len(trust_N) - 1)
    answered = last + 1.0
    return trust_N[last], answered / len(trust_N), 1 - np.cumsum(right_N)[last] / answered


def area_under_risk(trust: ArrayLike, right: ArrayLike) -> float:
    """The area under the risk-coverage curve; equal trust is one step of it, as wide as it is.

    Example:
        >>> area_under_risk([0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0])  # 1/4 * 0 + 3/4 * 1/2
        0.375
    """
    _, coverage, risk = risk_coverage(trust, right)
    return float((np.diff(coverage, prepend=0.0) * risk).sum())


def choose_threshold(
    trust: ArrayLike, right: ArrayLike, rule: Rule = "balanced", target: float | None = None
) -> float:
    """The threshold that validation questions ask for; answer where trust is at least that.

    Args:
        trust: Of the validation questions.
        right: Whether their answers are right.
        rule: ``balanced``: the highest share of right answers given minus share of wrong answers
            given. ``coverage``: the smallest coverage of at least `target`. ``risk``: the largest
            coverage with at most `target` wrong among the answers given.
        target: Of the latter two.

    Raises:
        DataError: All answers are right, or all are wrong; or no threshold keeps the risk.
    """
    right_N = np.asarray(right, float)
    cuts, coverage, risk = risk_coverage(trust, right_N)
    if rule == "coverage":
        return float(cuts[int(np.argmax(coverage >= (target or 0.0) - 1e-12))])
    if not right_N.any() or right_N.all():
        raise DataError(
            f"a threshold cannot be chosen: {int(right_N.sum())} of {len(right_N)} validation "
            "answers are right",
            where="validation",
            fix="give other validation questions, a threshold, or rule: coverage",
        )
    if rule == "risk":
        kept = np.flatnonzero(risk <= (target or 0.0) + 1e-12)
        if not len(kept):
            raise DataError(
                f"no threshold keeps the share of wrong answers at {target}",
                where=f"validation: the least is {risk.min():.3f}",
                fix="raise target",
            )
        return float(cuts[kept[-1]])
    answered = coverage * len(right_N)
    hits = answered * (1 - risk)
    gain = hits / right_N.sum() - (answered - hits) / (1 - right_N).sum()
    return float(cuts[int(np.argmax(gain))])


def estimate(
    columns: Mapping[str, Any],
    statistic: Callable[[dict[str, Floats]], float],
    resamples: int,
) -> Estimate:
    """A statistic of several columns per question, with a bootstrap interval over questions.

    Args:
        columns: Per name an array [N].
        statistic: Gets the same columns with questions drawn anew.
        resamples: Bootstrap resamples.
    """
    arrays = {name: np.asarray(values, float) for name, values in columns.items()}
    size = len(next(iter(arrays.values())))

    def of(drawn: Floats) -> float:
        rows = drawn.astype(int)
        return statistic({name: values[rows] for name, values in arrays.items()})

    return bootstrap(np.arange(size, dtype=float), of, resamples=resamples, over=("items",))
