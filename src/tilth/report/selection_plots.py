"""Drawings of a selection, as inline SVG in the page's colours: histograms, and a map of points.

Sizes are in pixels; every drawing comes twice, for a desk and for a telephone, so that its words
keep their size.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["histogram", "point_map"]

WIDE, NARROW = 740, 350
LEFT, BOTTOM, TOP = 46, 34, 10  # room for the words around a drawing


def histogram(
    edges: Sequence[float], parts: dict[str, Sequence[int]], label: str, said: str
) -> list[str]:
    """Two distributions over the same edges, each as shares of its own rows.

    Args:
        edges: Ends of the bars, one more than there are bars.
        parts: Counts by name: the first is drawn as an area, the second as a line.
        label: What the horizontal axis is.
        said: What a screen reader says.

    Returns:
        The drawing for a desk and for a telephone.
    """
    shares = {name: _shares(counts) for name, counts in parts.items()}
    highest = max((max(s, default=0) for s in shares.values()), default=0) or 1.0
    drawn = []
    for width in (WIDE, NARROW):
        height, right = (220, 8) if width == WIDE else (190, 4)
        frame = _Frame(LEFT, width - right, height - BOTTOM, TOP, highest)
        parts_drawn = [_grid(frame)]
        for number, values in enumerate(shares.values()):
            outline = _steps(values, frame)
            look = 'fill="var(--soft)" fill-opacity=".38" stroke="none"'
            if number:
                look = 'fill="none" stroke="var(--accent)" stroke-width="2"'
            parts_drawn.append(f'<path d="{outline}" {look}/>')
        parts_drawn.append(_axis(edges, frame, label, 5 if width == WIDE else 3))
        drawn.append(_svg(width, height, "".join(parts_drawn), said))
    return drawn


def point_map(
    x: Sequence[float], y: Sequence[float], chosen: Sequence[int], said: str
) -> list[str]:
    """Points on a plane, the chosen ones above the others; both axes in the same scale."""
    drawn = []
    low_x, low_y = min(x), min(y)
    span_x, span_y = max(x) - low_x or 1.0, max(y) - low_y or 1.0
    for width in (WIDE, NARROW):
        height, room, size = (460, 12, 4.2) if width == WIDE else (350, 8, 3.2)
        scale = min((width - 2 * room) / span_x, (height - 2 * room) / span_y)
        shift_x = (width - span_x * scale) / 2
        shift_y = (height - span_y * scale) / 2
        paths: dict[int, list[str]] = {0: [], 1: []}
        for px, py, kept in zip(x, y, chosen, strict=True):
            at_x, at_y = shift_x + (px - low_x) * scale, height - shift_y - (py - low_y) * scale
            paths[kept].append(f"M{at_x:.1f} {at_y:.1f}h0")
        looks = {0: ("soft", 0.38, size), 1: ("accent", 0.8, size)}
        body = "".join(
            f'<path d="{"".join(points)}" fill="none" stroke="var(--{looks[kept][0]})" '
            f'stroke-opacity="{looks[kept][1]}" stroke-width="{looks[kept][2]}" '
            'stroke-linecap="round"/>'
            for kept, points in paths.items()
        )
        drawn.append(_svg(width, height, body, said))
    return drawn


@dataclass(frozen=True)
class _Frame:
    """Where a drawing lies among its words, and the share that its upper edge stands for."""

    left: float
    right: float
    floor: float
    top: float
    highest: float

    def y(self, share: float) -> float:
        """The height of a share."""
        return self.floor - share / self.highest * (self.floor - self.top)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _steps(values: list[float], frame: _Frame) -> str:
    """The outline of a histogram as a path."""
    step = (frame.right - frame.left) / max(len(values), 1)
    path = [f"M{frame.left} {frame.floor}"]
    for number, value in enumerate(values):
        path.append(f"V{frame.y(value):.1f}H{frame.left + (number + 1) * step:.1f}")
    return "".join([*path, f"V{frame.floor}"])


def _grid(frame: _Frame) -> str:
    lines = []
    digits = 0 if frame.highest >= 0.1 else 1
    for share in (0.0, frame.highest / 2, frame.highest):
        y = frame.y(share)
        lines.append(
            f'<path d="M{frame.left} {y:.1f}H{frame.right}" stroke="var(--line)"/>'
            f'<text x="{frame.left - 6}" y="{y + 4:.1f}" text-anchor="end" class="tick">'
            f"{100 * share:.{digits}f}%</text>"
        )
    return "".join(lines)


def _axis(edges: Sequence[float], frame: _Frame, label: str, most: int) -> str:
    """Numbers below the drawing, and what they are."""
    low, span, width = edges[0], edges[-1] - edges[0], frame.right - frame.left
    drawn = []
    for number in range(most):
        share = number / (most - 1)
        anchor = {0: "start", most - 1: "end"}.get(number, "middle")
        drawn.append(
            f'<text x="{frame.left + share * width:.1f}" y="{frame.floor + 15}" '
            f'text-anchor="{anchor}" class="tick">{_number(low + share * span, span)}</text>'
        )
    drawn.append(
        f'<text x="{frame.left + width / 2:.1f}" y="{frame.floor + 31}" text-anchor="middle">'
        f"{html.escape(label)}</text>"
    )
    return "".join(drawn)


def _number(value: float, span: float) -> str:
    text = f"{value:.0f}" if span >= 20 else f"{value:.2f}" if span < 2 else f"{value:.1f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("-")


def _svg(width: int, height: int, body: str, said: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(said)}">'
        f"{body}</svg>"
    )
