"""The one sentence on top of a report, and honest remarks beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tilth.report.numbers import interval
from tilth.report.reading import RunView

__all__ = ["Tone", "Verdict", "relation", "verdict_of"]

Tone = Literal["better", "worse", "open", "none", "failed"]


@dataclass(frozen=True)
class Verdict:
    """What a run showed.

    Attributes:
        tone: ``better`` or ``worse`` where the interval excludes 0, ``open`` where it does not,
            ``none`` without a comparison, ``failed`` where the run stopped.
        lead: The sentence up to its figure.
        figure: The difference with its interval, or ``""``.
        tail: The rest of the sentence.
        remarks: One sentence each: controls, other arms, limits.
        arm: The arm that the sentence is about, or ``""``.
        baseline: What it was compared with, or ``""``.
    """

    tone: Tone
    lead: str
    figure: str = ""
    tail: str = ""
    remarks: tuple[str, ...] = ()
    arm: str = ""
    baseline: str = ""

    def __str__(self) -> str:
        return f"{self.lead}{self.figure}{self.tail}"


def relation(estimate: dict[str, Any]) -> Tone:
    """Whether an interval of a difference lies above 0, below 0 or includes it."""
    if estimate["low"] > 0:
        return "better"
    return "worse" if estimate["high"] < 0 else "open"


def verdict_of(run: RunView) -> Verdict:
    """The verdict of a run; of a comparison's arms, the first one listed is the claim."""
    comparison = run.comparison
    if comparison.get("differences"):
        return _compared(run, comparison)
    stopped = run.stopped_at
    if stopped:
        how = "failed" if stopped.status == "failed" or stopped.problem else "has not finished"
        reason = stopped.problem.strip().splitlines()[:1]
        return Verdict(
            "failed",
            f"The step {stopped.id} ({stopped.do}) {how}, so there is no verdict.",
            remarks=tuple(reason),
        )
    return Verdict("none", "This recipe compares nothing, so there is no verdict.")


def _compared(run: RunView, comparison: dict[str, Any]) -> Verdict:
    differences = comparison["differences"]
    baseline = str(comparison["baseline"])
    arm = next(iter(differences))
    estimate = differences[arm]["estimate"]
    tone = relation(estimate)
    where = f" on {_seeds(estimate)}"
    if tone == "open":
        lead = f"No difference shown: {arm} minus {baseline} is "
        tail = f"{where}; the interval includes 0."
    elif tone == "better":
        lead, tail = f"{arm} beats {baseline} by ", f"{where}."
    else:
        lead, tail = f"{arm} is worse than {baseline}: the difference is ", f"{where}."
    return Verdict(
        tone,
        lead,
        interval(estimate),
        tail,
        tuple(_remarks(run, comparison, arm)),
        arm,
        baseline,
    )


def _remarks(run: RunView, comparison: dict[str, Any], main: str) -> list[str]:
    baseline = comparison["baseline"]
    claim = comparison["differences"][main]["estimate"]
    remarks = []
    for arm, found in comparison["differences"].items():
        if arm == main:
            continue
        estimate = found["estimate"]
        words = {
            "better": "is above",
            "worse": "is below",
            "open": "is not told apart from",
        }[relation(estimate)]
        remarks.append(
            f"{arm} {words} {baseline}: "
            f"{interval(estimate, sign=True)}"
            + (" (the interval includes 0)." if relation(estimate) == "open" else ".")
        )
    if claim["seeds"] < 2:
        remarks.append("With one test seed the interval covers the items only, not the seeds.")
    stopped = run.stopped_at
    if stopped:
        remarks.append(f"The step {stopped.id} ({stopped.do}) did not finish.")
    return remarks


def _seeds(estimate: dict[str, Any]) -> str:
    count = int(estimate["seeds"])
    return f"{count} test seed{'s' if count != 1 else ''}"
