"""Refusals on the page: what each model answers, what it keeps back, and at which risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tilth.report.numbers import value_text
from tilth.report.plots import RiskCurve, line_style, risk_plot
from tilth.report.reading import RunView, StepView, json_rows

__all__ = ["Refusals", "refusals_of"]

POINTS = 400  # of a curve that is drawn; more cannot be told apart

_ROWS = (
    ("coverage", "answered"),
    ("willing_accuracy", "right, of what is answered"),
    ("accuracy", "right, if all were answered"),
    ("pretrain_w", "right by the untouched model, of what is answered"),
    ("pretrain_t", "right by the untouched model, of all"),
    ("refused_though_right", "refused though right"),
    ("unanswerable_refused", "unanswerable questions refused"),
    ("over_refusal", "refused of their answerable twins"),
    ("ap", "average precision of what decides"),
    ("aurc", "area under the curve (less is better)"),
    ("ece_p_predict", "calibration error of p_predict"),
    ("ece_p_sure", "calibration error of p_sure"),
    ("ece_confidence", "calibration error of both together"),
)


@dataclass(frozen=True)
class Refusals:
    """What the page shows of all evaluations of refusal together.

    Attributes:
        names: The steps.
        rules: Per step what decides, and from which value on.
        rows: ``(label, an estimate per step)``; None where a step has none.
        curves: The key of the plot, as that of the losses.
        plots: The plot, wide and narrow.
    """

    names: list[str]
    rules: list[str]
    rows: list[tuple[str, list[dict[str, Any] | None]]]
    curves: list[dict[str, Any]]
    plots: list[str]


def refusals_of(run: RunView, main: str) -> Refusals | None:
    """The refusals of a run, or None where nothing was asked that may refuse.

    Args:
        run: The run.
        main: The step to stand out, if it is one of them; else the first does.
    """
    steps = [s for s in run.of_kind("scores") if s.do == "evaluate.refusal"]
    if not steps:
        return None
    found = [(label, [s.manifest.metrics.get(name) for s in steps]) for name, label in _ROWS]
    curves = [_curve(step) for step in steps]
    first = main if main in {s.id for s in steps} else steps[0].id
    return Refusals(
        names=[s.id for s in steps],
        rules=[_rule(s.manifest.metrics) for s in steps],
        rows=[(label, values) for label, values in found if any(values)],
        curves=[
            {"name": c.name, "main": c.name == first, "dash": line_style(n, c.name == first)}
            for n, c in enumerate(curves)
        ],
        plots=[risk_plot(curves, first, narrow=n) for n in (False, True)],
    )


def _rule(metrics: dict[str, Any]) -> str:
    """What decides, e.g. ``p_sure from 0.4994``."""
    by, threshold = str(metrics.get("refuse_by", "")), metrics.get("threshold")
    if threshold is None:
        return by
    return f"{by} {'up to' if by == 'entropy' else 'from'} {value_text(threshold)}"


def _curve(step: StepView) -> RiskCurve:
    """The curve of a step, thinned to what can be seen, and the point at which it decides."""
    path = step.file("curve.jsonl")
    points = [(row["coverage"], row["risk"]) for row in json_rows(path)] if path else []
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), POINTS)).astype(int))
    metrics = step.manifest.metrics
    chosen = metrics["coverage"]["value"], 1 - metrics["willing_accuracy"]["value"]
    return RiskCurve(
        step.id,
        [points[n][0] for n in kept],
        [points[n][1] for n in kept],
        chosen if chosen[0] > 0 else None,
    )
