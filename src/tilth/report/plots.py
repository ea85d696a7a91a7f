"""Plots as inline SVG that take their colours and fonts from the page.

matplotlib draws with stand-in colours; they are replaced by the page's CSS variables, so that one
drawing serves light and dark. Text stays text. The same data give the same bytes: no dates, and
ids salted by the figure's name.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilth.report.numbers import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Curve",
    "Mark",
    "RiskCurve",
    "line_style",
    "loss_plot",
    "marks",
    "risk_plot",
    "score_plot",
]

WIDE, NARROW = 7.4, 3.5  # inches at 100 px: the text column, and a telephone
DASHES = ("5 3", "1 2", "8 3 1 3")  # of the curves beside the claim, in their order

# Stand-ins that matplotlib writes as they are, and the CSS variable that each becomes.
_STAND_INS = {
    "ink": "#010203",
    "soft": "#020304",
    "line": "#030405",
    "accent": "#040506",
    "paper": "#050607",
}


@dataclass(frozen=True)
class Mark:
    """How an arm is drawn: a matplotlib marker, and names of page colours."""

    marker: str
    edge: str
    face: str


@dataclass(frozen=True)
class Curve:
    """A training curve: optimizer steps and losses."""

    name: str
    steps: Sequence[float]
    losses: Sequence[float]


@dataclass(frozen=True)
class RiskCurve:
    """Share of wrong answers over the share of questions answered, and the chosen point."""

    name: str
    coverage: Sequence[float]
    risk: Sequence[float]
    chosen: tuple[float, float] | None


def marks(names: Sequence[str], baseline: str, main: str) -> dict[str, Mark]:
    """A mark for every arm, baseline and claim first; the accent belongs to the claim alone."""
    others = [n for n in names if n not in (baseline, main)]
    drawn = {baseline: Mark("o", "ink", "ink")} if baseline in names else {}
    if main in names:
        drawn[main] = Mark("o", "accent", "accent")
    for rank, name in enumerate(others):
        edge = "ink" if rank == 0 else "soft"
        drawn[name] = Mark(("o", "D", "s", "^", "v")[rank % 5], edge, "paper")
    return drawn


def line_style(number: int, is_main: bool) -> str:
    """The SVG dash pattern of a curve: the claim is solid, the others are dashed in turn."""
    return "" if is_main else DASHES[number % len(DASHES)]


def score_plot(
    arms: dict[str, Any], drawn: dict[str, Mark], metric: str, *, narrow: bool = False
) -> str:
    """Scores with intervals, overall and per skill, one mark per arm; chance as a dotted tick.

    Args:
        arms: As in ``comparison.json``.
        drawn: The mark of each arm, in the order to draw them.
        metric: Label of the axis.
        narrow: Draw for a telephone.
    """
    skills = sorted({skill for arm in arms.values() for skill in arm.get("by_skill") or {}})
    groups = ["overall", *skills]

    def draw(axes: Axes) -> None:
        for row, group in enumerate(groups):
            _score_row(axes, row, group, arms, drawn)
        axes.axhline(0.5, color=_STAND_INS["line"], lw=0.9)
        axes.set_yticks(range(len(groups)), [g.replace("_", " ") for g in groups])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.set_ylim(len(groups) - 0.4, -0.6)
        found = [e for a in arms.values() for e in (a["estimate"], *a.get("by_skill", {}).values())]
        if all(e["low"] >= 0 and e["high"] <= 1 for e in found):
            axes.set_xlim(-0.02, 1.02)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axes.xaxis.grid(True, color=_STAND_INS["line"], lw=0.7)
        axes.set_xlabel(metric)

    said = "; ".join(f"{name} {interval(arms[name]['estimate'])}" for name in drawn)
    pitch = max(0.44, 0.15 * len(drawn))
    return _figure(
        f"score-{narrow}",
        f"Scores with intervals. Overall: {said}. The values per skill are in the table below.",
        (NARROW if narrow else WIDE, 0.7 + pitch * len(groups)),
        draw,
    )


def loss_plot(curves: Sequence[Curve], main: str, *, narrow: bool = False) -> str:
    """Training loss over optimizer steps: measured values thin, a running mean thick."""

    def draw(axes: Axes) -> None:
        for number, curve in enumerate(curves):
            is_main = curve.name == main
            color, line = _line(number, is_main)
            if len(curve.losses) > 12:
                axes.plot(curve.steps, curve.losses, color=color, lw=0.6, alpha=0.4)
            axes.plot(curve.steps, _running_mean(curve.losses), color=color, **line)
        axes.margins(x=0.01)
        axes.yaxis.grid(True, color=_STAND_INS["line"], lw=0.7)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss")

    said = "; ".join(f"{c.name} from {c.losses[0]:.3g} to {c.losses[-1]:.3g}" for c in curves)
    size = (NARROW, 2.3) if narrow else (WIDE, 2.8)
    return _figure(f"loss-{narrow}", f"Training loss: {said}.", size, draw)


def risk_plot(curves: Sequence[RiskCurve], main: str, *, narrow: bool = False) -> str:
    """Wrong answers over questions answered, a line per model; a dot where it decides."""

    def draw(axes: Axes) -> None:
        for number, curve in enumerate(curves):
            color, line = _line(number, curve.name == main)
            axes.plot(curve.coverage, curve.risk, color=color, **line)
            if curve.chosen:
                axes.plot(*curve.chosen, "o", color=color, ms=6, clip_on=False, zorder=3)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        axes.yaxis.grid(True, color=_STAND_INS["line"], lw=0.7)
        axes.set_xlabel("share of questions answered")
        axes.set_ylabel("share of them wrong")

    said = "; ".join(
        f"{c.name} answers {c.chosen[0]:.2f} of the questions, {c.chosen[1]:.2f} of them wrongly"
        if c.chosen
        else f"{c.name} answers nothing"
        for c in curves
    )
    size = (NARROW, 2.3) if narrow else (WIDE, 2.8)
    return _figure(f"risk-{narrow}", f"Risk over coverage. {said}.", size, draw)


def _line(number: int, is_main: bool) -> tuple[str, dict[str, Any]]:
    """Colour and style of a curve's line."""
    dashes = [float(x) for x in line_style(number, is_main).split()]
    style = (0, [x / 1.4 for x in dashes]) if dashes else "-"
    return _STAND_INS["accent" if is_main else "soft"], {"lw": 2 if is_main else 1.4, "ls": style}


def _score_row(
    axes: Axes, row: int, group: str, arms: dict[str, Any], drawn: dict[str, Mark]
) -> None:
    spread = 0.72 / max(len(drawn), 1)
    large = group == "overall"
    for rank, (name, mark) in enumerate(drawn.items()):
        found = arms[name]["estimate"] if large else arms[name].get("by_skill", {}).get(group)
        if not found:
            continue
        y = row + (rank - (len(drawn) - 1) / 2) * spread
        edge, face = _STAND_INS[mark.edge], _STAND_INS[mark.face]
        width = 1.8 if large else 1.2
        axes.plot([found["low"], found["high"]], [y, y], color=edge, lw=width)
        size = (6.5 if large else 5.0) * (0.85 if mark.marker in "Ds" else 1)
        axes.plot(
            found["value"],
            y,
            mark.marker,
            mfc=face,
            mec=edge,
            mew=1.2,
            ms=size,
            clip_on=False,
            zorder=3,
        )
    chance = next((c for arm in arms.values() if (c := arm.get("chance", {}).get(group))), None)
    if chance:
        ends = [row - 0.42, row + 0.42]
        axes.plot([chance, chance], ends, color=_STAND_INS["soft"], lw=1.1, ls=(0, (1.5, 2)))


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean over a centred window of about a fifteenth of the curve; shorter at its ends."""
    reach = len(values) // 30
    smooth = []
    for n in range(len(values)):
        around = min(reach, n, len(values) - 1 - n)
        window = values[n - around : n + around + 1]
        smooth.append(sum(window) / len(window))
    return smooth


def _figure(salt: str, said: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """An ``<svg>`` element of `size` inches with a spoken description, drawn by `draw`."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {  # matplotlib types each key by itself
        "svg.fonttype": "none",
        "svg.hashsalt": f"tilth-{salt}",
        "text.parse_math": False,  # a skill called "$x" is a name, not a formula
        "figure.dpi": 100,
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        axes.set_axisbelow(True)
        draw(axes)
        axes.tick_params(length=0, labelcolor=_STAND_INS["ink"], labelsize=10)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(_STAND_INS["soft"])
        nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _for_page(buffer.getvalue(), said)


def _for_page(svg: str, said: str) -> str:
    """Leaves the drawing, and lets the page decide on size, colours and fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_[0-9]+"', "", svg)  # would repeat from figure to figure
    svg = re.sub(r"font: ([^;\"]*?)([0-9.]+)px [^;\"]*", _font, svg)
    for name, stand_in in _STAND_INS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    box = re.search(r'viewBox="([^"]+)"', svg)
    body = svg[svg.index(">") + 1 :].strip()
    view = box.group(1) if box else "0 0 1 1"
    return f'<svg viewBox="{view}" role="img" aria-label="{html.escape(said)}">{body}'


def _font(found: re.Match[str]) -> str:
    weight = "font-weight: 700; " if "bold" in found.group(1) or "700" in found.group(1) else ""
    return f"{weight}font-size: {found.group(2)}px"
