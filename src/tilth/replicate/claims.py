"""Claims and how they are judged: always by the interval of a paired difference between arms.

Three forms hold what papers claim:

- :class:`Greater`: A scores above B (by a margin). With a negative margin: A is not worse than B by
  more than that. "A costs less than B" is the same with a cost as the metric and the arms swapped.
- :class:`Within`: A and B differ by less than d, both ways (equivalence).
- :class:`Monotone`: the score rises, or falls, over an ordered list of arms.

A claim is *reproduced* where the whole interval is on its side, *contradicted* where the whole
interval is on the other, and *not shown* where the interval covers both, or a cell is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from tilth.errors import RecipeError
from tilth.stats import Estimate, paired_difference

__all__ = ["Claim", "Finding", "Greater", "Monotone", "Table", "Verdict", "Within", "judge"]

Verdict = Literal["reproduced", "not shown", "contradicted"]

Table = Mapping[str, Mapping[int, Sequence[float]]]
"""Scores of one metric: arm -> test seed -> one score per item (or the mean alone)."""


@dataclass(frozen=True)
class Greater:
    """Arm `a` scores above arm `b`.

    Attributes:
        a: The arm that is said to be better.
        b: The arm it is compared with.
        by: Margin: reproduced where the interval of ``a - b`` lies above it.
        metric: Which of the cell's scores.
    """

    a: str
    b: str
    by: float = 0.0
    metric: str = "score"

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it speaks of."""
        return (self.a, self.b)

    def __str__(self) -> str:
        return f"{self.a} > {self.b}" + (f" + {self.by:g}" if self.by else "")


@dataclass(frozen=True)
class Within:
    """Arms `a` and `b` differ by less than `d`, either way.

    Attributes:
        a: One arm.
        b: The other arm.
        d: Reproduced where the interval of ``a - b`` lies inside ``(-d, d)``; more than 0.
        metric: Which of the cell's scores.
    """

    a: str
    b: str
    d: float
    metric: str = "score"

    def __post_init__(self) -> None:
        if not self.d > 0:
            raise RecipeError(f"the distance d must be above 0, not {self.d}", where=str(self))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it speaks of."""
        return (self.a, self.b)

    def __str__(self) -> str:
        return f"|{self.a} - {self.b}| < {self.d:g}"


@dataclass(frozen=True)
class Monotone:
    """The score rises (or falls) from each of `levels` to the next.

    Attributes:
        levels: At least two arms in order.
        rising: False where the claim is that it falls.
        slack: A step may go the other way by less than this.
        metric: Which of the cell's scores.
    """

    levels: tuple[str, ...]
    rising: bool = True
    slack: float = 0.0
    metric: str = "score"

    def __post_init__(self) -> None:
        if len(self.levels) < 2 or self.slack < 0:
            raise RecipeError("needs two levels or more, and a slack of 0 or more", where=str(self))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it speaks of."""
        return self.levels

    def __str__(self) -> str:
        return (" < " if self.rising else " > ").join(self.levels)


@dataclass(frozen=True)
class Claim:
    """What a system's paper says, in a form that can be judged.

    Attributes:
        system: The system's name, as in ``tilth replicate SYSTEM``.
        statement: The claim in one sentence.
        direction: What must hold between which arms.
        published: The published figure in the paper's words, ``unverified`` where it is known at
            second hand only, or ``none``.
        source: Where the figure stands: paper, table, page.
    """

    system: str
    statement: str
    direction: Greater | Within | Monotone
    published: str = "unverified"
    source: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim's verdict with its evidence.

    Attributes:
        verdict: ``reproduced``, ``not shown`` or ``contradicted``.
        estimate: The paired difference that decided; of a monotone claim its weakest step; None
            where nothing could be computed.
        why: The reason in one sentence.
        steps: All differences that were looked at, as ``(a, b, estimate of a - b)``.
    """

    verdict: Verdict
    estimate: Estimate | None
    why: str
    steps: list[tuple[str, str, Estimate]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "verdict": self.verdict,
            "estimate": self.estimate.as_dict() if self.estimate else None,
            "why": self.why,
            "differences": [{"a": a, "b": b, "estimate": e.as_dict()} for a, b, e in self.steps],
        }


def judge(
    claim: Claim,
    table: Table,
    seeds: Sequence[int],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Finding:
    """Judges `claim` on the scores of its metric.

    Args:
        claim: What to judge.
        table: Scores by arm and test seed; every arm of the claim must be there.
        seeds: The test seeds that were asked for. Where a cell is missing the difference is still
            computed on the seeds that both arms have, but the verdict stays "not shown".
        level: Confidence level of the intervals.
        resamples: Bootstrap resamples.

    Raises:
        DataError: Two arms scored a different number of items under one seed.
    """
    direction = claim.direction
    missing = [(a, s) for a in direction.arms for s in seeds if s not in table.get(a, {})]

    def difference(a: str, b: str, at: float = level) -> Estimate | None:
        both = [s for s in seeds if s in table.get(a, {}) and s in table.get(b, {})]
        if not both:
            return None
        ours, theirs = ({s: table[arm][s] for s in both} for arm in (a, b))
        return paired_difference(ours, theirs, level=at, resamples=resamples)

    if isinstance(direction, Monotone):
        ordered = direction.levels if direction.rising else direction.levels[::-1]
        pairs = [(high, low) for low, high in pairwise(ordered)]
        floor = 0.0 - direction.slack
    else:
        pairs = [(direction.a, direction.b)]
        floor = direction.by if isinstance(direction, Greater) else 0.0
    steps = [(a, b, found) for a, b in pairs if (found := difference(a, b))]
    if missing:
        named = ", ".join(f"{arm}/{seed}" for arm, seed in missing)
        weakest = min((e for _, _, e in steps), key=lambda e: e.low, default=None)
        return Finding("not shown", weakest, f"incomplete: no scores of {named}", steps)
    if isinstance(direction, Within):
        return _within(steps[0][2], direction.d, steps)
    # All steps must hold for the claim, so that their intervals need no correction; any one can
    # contradict it, so that there the error is shared among them (Bonferroni).
    shared = 1 - (1 - level) / len(pairs)
    sunk = [
        f"{a} - {b}"
        for a, b, _ in steps
        if len(pairs) > 1 and (wide := difference(a, b, shared)) and wide.high < floor
    ]
    return _above(steps, floor, sunk)


def _within(estimate: Estimate, d: float, steps: list[tuple[str, str, Estimate]]) -> Finding:
    if -d < estimate.low and estimate.high < d:
        return Finding("reproduced", estimate, f"the interval lies inside ±{d:g}", steps)
    if estimate.low > d or estimate.high < -d:
        return Finding("contradicted", estimate, f"the interval lies outside ±{d:g}", steps)
    return Finding("not shown", estimate, f"the interval crosses a bound of ±{d:g}", steps)


def _above(steps: list[tuple[str, str, Estimate]], floor: float, sunk: list[str]) -> Finding:
    a, b, weakest = min(steps, key=lambda step: step[2].low - floor)
    at = f"{a} - {b}" if len(steps) > 1 else "the difference"
    if weakest.low > floor:
        told = f"the interval of {'every step' if len(steps) > 1 else 'the difference'}"
        return Finding("reproduced", weakest, f"{told} lies above {floor:g}", steps)
    if sunk or (len(steps) == 1 and weakest.high < floor):
        worst = f"the interval of {sunk[0] if sunk else at} lies below {floor:g}"
        return Finding("contradicted", weakest, worst, steps)
    return Finding("not shown", weakest, f"the interval of {at} includes {floor:g}", steps)
