"""Finds a place for the label of every point of a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Point", "label_points"]

_NEAR = 9.0  # points closer than this, in px, share a label
_FAR = (8, 18, 30, 44, 60)  # distances of a label from its point, in px
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_ROUNDS = 3
# What covering a square px costs: text and points, bars, what leads from a label to its point.
_TEXT, _BAR, _LEADER, _OUTSIDE = 8.0, 4.0, 16.0, 30.0

Pixel = Callable[[float, float], tuple[float, float]]
Boxes = np.ndarray
"""Rows of left, bottom, right, top and what covering costs, in px: ``[n, 5]``."""


@dataclass(frozen=True)
class Point:
    """A point with intervals along both axes, as estimates of a result.

    Attributes:
        x: Estimate along x.
        y: Estimate along y.
        text: Its label.
        color: Of the label; points in one place share a label.
    """

    x: Mapping[str, Any]
    y: Mapping[str, Any]
    text: str
    color: str


def label_points(axes: Axes, path: Sequence[Point], beside: Sequence[Point], mixed: str) -> None:
    """Writes each label where it covers least: other points, bars, the line, other labels.

    Args:
        axes: Laid out for good, in a figure of 72 dpi, so that a px is a point.
        path: Points that are joined by a line.
        beside: Other points.
        mixed: Colour of a label that points of several colours share.
    """

    def pixel(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    drawn = _obstacles(path, beside, pixel)
    room = np.array([axes.bbox.x0, axes.bbox.y0, axes.bbox.x1 + 8, axes.bbox.y1 + 2])
    named = _merged([*path, *beside], pixel, mixed)
    labels = [
        axes.annotate(
            text,
            place,
            (0, 0),
            xycoords="figure pixels",
            textcoords="offset points",
            color=color,
            size=10.5,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8, "shrinkA": 1, "shrinkB": 5},
        )
        for place, text, color in named
    ]
    options = []
    for (place, *_), label in zip(named, labels, strict=True):
        box = label.get_window_extent()
        size = (box.width, box.height)
        options.append([_Spot.of(place, size, *where) for where in product(_FAR, _AROUND)])
    for label, spot in zip(labels, _arranged(options, drawn, room), strict=True):
        dx, dy = spot.side
        label.set_position((dx * spot.far, dy * spot.far))
        label.set(ha=("center", "left", "right")[dx], va=("center", "bottom", "top")[dy])
        if spot.far == _FAR[0] and label.arrow_patch:  # beside its point: no line needed
            label.arrow_patch.set_visible(False)


def _arranged(options: list[list[_Spot]], drawn: Boxes, room: np.ndarray) -> list[_Spot]:
    """One of the options for each label, so that together they cover little.

    Label by label takes its best place, some rounds long, since the others stand by then. Who is
    first matters, so each label is the first once, and the best outcome counts.
    """
    best: tuple[float, list[_Spot]] = (float("inf"), [])
    for first in range(len(options)):
        chosen: dict[int, _Spot] = {}
        total = 0.0
        for _ in range(_ROUNDS):
            total = 0.0
            for n in (*range(first, len(options)), *range(first)):
                others = [spot.boxes for m, spot in chosen.items() if m != n]
                blocked = np.concatenate([drawn, *others])
                costs = [spot.cost(blocked, room) for spot in options[n]]
                chosen[n] = options[n][int(np.argmin(costs))]
                total += min(costs)
        if total < best[0]:
            best = (total, [chosen[n] for n in range(len(options))])
    return best[1]


@dataclass(frozen=True)
class _Spot:
    """A place for a label: how far from its point, on which side, and the boxes that it fills.

    The first box is the text; the others are the line that leads to the point.
    """

    far: int
    side: tuple[int, int]
    boxes: Boxes

    @classmethod
    def of(
        cls, at: tuple[float, float], size: tuple[float, float], far: int, side: tuple[int, int]
    ) -> _Spot:
        """The spot `far` from the point `at`, for a label of `size` px."""
        (x, y), (width, height), (dx, dy) = at, size, side
        left, low = x + dx * far - (1 - dx) / 2 * width, y + dy * far - (1 - dy) / 2 * height
        text = np.array([[left, low, left + width, low + height, _TEXT]])
        leader = _along(at, (left + width / 2, low + height / 2), 1.5, _LEADER)
        middle = (leader[:, :2] + leader[:, 2:4]) / 2
        apart = (np.abs(middle - np.array(at)).max(1) > 8) & (_overlap(leader, text)[:, 0] == 0)
        return cls(far, side, np.concatenate([text, leader[apart]]) if far > _FAR[0] else text)

    def cost(self, blocked: Boxes, room: np.ndarray) -> float:
        """Weighted px that it covers or that lie outside `room`; and what a leader costs."""
        weights = np.maximum(self.boxes[:, None, 4], blocked[None, :, 4])
        weights[0] = blocked[:, 4]
        covered = (_overlap(self.boxes, blocked) * weights).sum()
        left, low, right, high = self.boxes[0, :4]
        within = _overlap(self.boxes[:1], room[None])[0, 0]
        outside = (right - left) * (high - low) - within
        away = 250 + 3 * self.far if self.far > _FAR[0] else 0
        return float(covered + _OUTSIDE * outside + away)


def _obstacles(path: Sequence[Point], beside: Sequence[Point], pixel: Pixel) -> Boxes:
    """Boxes of points, bars and the line between points."""
    boxes: list[Any] = []
    for p in [*path, *beside]:
        x, y = pixel(p.x["value"], p.y["value"])
        left, low = pixel(p.x["low"], p.y["low"])
        right, high = pixel(p.x["high"], p.y["high"])
        boxes += [
            (x - 5, y - 5, x + 5, y + 5, _TEXT),
            (left, y - 1.5, right, y + 1.5, _BAR),
            (x - 1.5, low, x + 1.5, high, _BAR),
        ]
    lines = [
        _along(pixel(a.x["value"], a.y["value"]), pixel(b.x["value"], b.y["value"]), 2.0, _BAR)
        for a, b in pairwise(path)
    ]
    return np.concatenate([np.array(boxes).reshape(-1, 5), *lines])


def _along(
    start: tuple[float, float], end: tuple[float, float], half: float, weight: float
) -> Boxes:
    """Boxes of twice `half` px that cover a line."""
    reach = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    middle = np.linspace(start, end, max(2, round(reach / (2 * half)) + 1))
    return np.column_stack([middle - half, middle + half, np.full(len(middle), weight)])


def _merged(
    points: Sequence[Point], pixel: Pixel, mixed: str
) -> list[tuple[tuple[float, float], str, str]]:
    """Place, text and colour of every label."""
    shared: list[tuple[tuple[float, float], str, str]] = []
    for p in points:
        x, y = pixel(p.x["value"], p.y["value"])
        for n, ((px, py), text, color) in enumerate(shared):
            if abs(x - px) < _NEAR and abs(y - py) < _NEAR:
                both = color if color == p.color else mixed
                shared[n] = ((px, py), f"{text}, {p.text}", both)
                break
        else:
            shared.append(((x, y), p.text, p.color))
    return shared


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The areas that boxes ``[n, 4 or more]`` and ``[m, 4 or more]`` share: ``[n, m]``, in px."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    shared: np.ndarray = np.clip(high - low, 0, None).prod(-1)
    return shared
