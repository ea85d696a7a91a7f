"""Figures that a replication declares: which scores belong together on one pair of axes.

A figure is written into the result as plain data, and drawn from the result alone when the papers
are written: no cell is computed again for it.

- :class:`Curve`: one metric over a number that the arms vary, one line per series of arms.
- :class:`Frontier`: two metrics against each other, one point per arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tilth.errors import RecipeError

__all__ = ["Curve", "Frontier", "Plot"]


@dataclass(frozen=True)
class Curve:
    """A metric over a number, as lines through arms.

    Attributes:
        name: A short word for the file: ``docs/images/papers/SYSTEM-NAME.svg``.
        title: What is shown, in a few words.
        lines: Label -> its arms, in the order of `x`.
        x: The number that each arm of a line stands for.
        x_label: Name of the x axis, with its unit.
        y_label: Name of the y axis, with its unit.
        metric: Which of the arms' scores.
        scale: How `x` is spaced; ``even`` puts the numbers side by side, e.g. 0, 1, 4, 16.
    """

    name: str
    title: str
    lines: Mapping[str, tuple[str, ...]]
    x: tuple[float, ...]
    x_label: str
    y_label: str
    metric: str = "score"
    scale: Literal["linear", "log", "even"] = "linear"

    def __post_init__(self) -> None:
        for label, arms in self.lines.items():
            if len(arms) != len(self.x):
                raise RecipeError(
                    f"the line {label!r} has {len(arms)} arms for {len(self.x)} values of x",
                    where=f"figure {self.name!r}",
                )
        if not self.lines or (self.scale == "log" and min(self.x) <= 0):
            raise RecipeError(
                "a curve needs a line, and x above 0 for a log scale", where=f"figure {self.name!r}"
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it shows."""
        return tuple(arm for arms in self.lines.values() for arm in arms)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": "curve",
            "name": self.name,
            "title": self.title,
            "lines": {label: list(arms) for label, arms in self.lines.items()},
            "x": list(self.x),
            "x_label": self.x_label,
            "y_label": self.y_label,
            "metric": self.metric,
            "scale": self.scale,
        }


@dataclass(frozen=True)
class Frontier:
    """One metric against another, a point per arm.

    Attributes:
        name: A short word for the file: ``docs/images/papers/SYSTEM-NAME.svg``.
        title: What is shown, in a few words.
        x_metric: The metric along x.
        y_metric: The metric along y.
        x_label: Name of the x axis, with its unit.
        y_label: Name of the y axis, with its unit.
        path: Arms that are joined by a line, in this order.
        beside: Arms to compare with: points of their own, marked by their role.
        labels: Arm -> the text at its point; without one, the name of the arm.
    """

    name: str
    title: str
    x_metric: str
    y_metric: str
    x_label: str
    y_label: str
    path: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.arms or set(self.labels) - set(self.arms):
            raise RecipeError(
                "a frontier needs arms, and labels for no others", where=f"figure {self.name!r}"
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it shows."""
        return self.path + self.beside

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": "frontier",
            "name": self.name,
            "title": self.title,
            "x_metric": self.x_metric,
            "y_metric": self.y_metric,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "path": list(self.path),
            "beside": list(self.beside),
            "labels": dict(self.labels),
        }


Plot = Curve | Frontier
