"""The one sentence on top of a report, and honest remarks beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tilth.report.numbers import counted, interval
from tilth.report.reading import RunView
from tilth.report.scores import against

__all__ = ["Tone", "Verdict", "relation", "verdict_of"]

Tone = Literal["better", "worse", "open", "none", "failed"]

_ENDED = {"failed": "failed", "interrupted": "was interrupted", "finished": "cannot be read"}


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
        others: The paired difference of the arm less each arm that is not the baseline.
    """

    tone: Tone
    lead: str
    figure: str = ""
    tail: str = ""
    remarks: tuple[str, ...] = ()
    arm: str = ""
    baseline: str = ""
    others: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.lead}{self.figure}{self.tail}"


def relation(estimate: dict[str, Any]) -> Tone:
    """Whether an interval of a difference lies above 0, below 0 or includes it."""
    if estimate["low"] > 0:
        return "better"
    return "worse" if estimate["high"] < 0 else "open"


def verdict_of(run: RunView) -> Verdict:
    """The verdict of a run.

    Of a comparison's arms the claim is the one called ``tuned``, or else the first one listed; it
    is never chosen by its score.
    """
    comparison = run.comparison
    if comparison.get("differences"):
        return _compared(run, comparison)
    stopped = run.stopped_at
    if stopped:
        how = _ENDED.get(stopped.status, "has not finished")
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
    arm = "tuned" if "tuned" in differences else next(iter(differences))
    estimate = differences[arm]["estimate"]
    tone = relation(estimate)
    where = f" on {counted(int(estimate['seeds']), 'test seed')}"
    if tone == "open":
        lead = f"No difference shown: {arm} minus {baseline} is "
        tail = f"{where}; the interval includes 0."
    elif tone == "better":
        lead, tail = f"{arm} beats {baseline} by ", f"{where}."
    else:
        lead, tail = f"{arm} is worse than {baseline}: the difference is ", f"{where}."
    others = against(run, arm)
    remarks = tuple(_remarks(run, comparison, arm, others))
    return Verdict(tone, lead, interval(estimate), tail, remarks, arm, baseline, others)


def _remarks(
    run: RunView, comparison: dict[str, Any], main: str, others: dict[str, dict[str, Any]]
) -> list[str]:
    remarks = []
    for arm, estimate in others.items():
        words = {
            "better": f"{main} is above {arm} as well",
            "worse": f"{main} is below {arm}",
            "open": f"{main} is not told apart from {arm}",
        }[relation(estimate)]
        remarks.append(f"{words}: {interval(estimate, sign=True)}.")
    if comparison["differences"][main]["estimate"]["seeds"] < 2:
        remarks.append("With one test seed the interval covers the items only, not the seeds.")
    stopped = run.stopped_at
    if stopped:
        remarks.append(f"The step {stopped.id} ({stopped.do}) did not finish.")
    return remarks
