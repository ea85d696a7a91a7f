"""Draws the figures of a result as SVG files that stand alone.

Each file paints its own background and follows the reader's colour scheme; a viewer that knows no
schemes shows it light. Text stays text. The same result gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tilth.replicate.pages.labels import Point, label_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "undrawn"]

# Light and dark; contrast of at least 4.5 with the paper of its scheme, the line excepted.
_SCHEMES = {
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9198a1"),
    "line": ("#d1d9e0", "#30363d"),
    "blue": ("#0969da", "#4493f8"),
    "orange": ("#bc4c00", "#f0883e"),
    "green": ("#1a7f37", "#3fb950"),
    "purple": ("#8250df", "#ab7df8"),
}
_C = {name: light for name, (light, _) in _SCHEMES.items()}
# Colours are never alone: markers and dashes tell the lines apart too.
_LINES: tuple[tuple[str, str, Any], ...] = (
    ("blue", "o", "-"),
    ("orange", "s", (0, (5, 2))),
    ("green", "D", (0, (1.5, 1.5))),
    ("purple", "^", (0, (6, 2, 1.5, 2))),
    ("ink", "v", (0, (3, 3))),
)
_ROLES = {
    "method": ("o", "blue", "blue"),
    "baseline": ("s", "ink", "paper"),
    "control": ("D", "orange", "paper"),
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_SIZE = {"curve": (7.6, 4.0), "frontier": (7.6, 4.8)}  # inches at 72 px

Estimate = Mapping[str, Any]


def draw(plot: Mapping[str, Any], arms: Sequence[Mapping[str, Any]], note: str) -> str:
    """The SVG of a figure.

    Args:
        plot: As in ``plots`` of a result.
        arms: As in ``arms`` of a result. What has no score is left out: see :func:`undrawn`.
        note: A line below the title, e.g. what the bars are.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    settings: Any = {  # matplotlib types each key by itself
        "svg.fonttype": "none",
        "svg.hashsalt": f"tilth-{plot['name']}",
        "text.parse_math": False,  # an arm called "$x" is a name, not a formula
        "font.size": 11,
        "axes.edgecolor": _C["line"],
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        # At 72 px an inch of the figure's is an inch of the SVG's, so that what is measured holds.
        figure = Figure(
            figsize=_SIZE[plot["kind"]],
            dpi=72,
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
        )
        figure.set_facecolor(_C["paper"])
        axes = figure.add_subplot()
        axes.set_facecolor(_C["paper"])
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(True, color=_C["line"], lw=0.8)
        title = textwrap.fill(plot["title"], 54)
        axes.set_title(title, loc="left", pad=24, color=_C["ink"], size=14, weight="bold")
        above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(note, (0, 1), (0, 9), color=_C["soft"], size=10.5, **above)
        axes.set_xlabel(plot["x_label"], color=_C["soft"], labelpad=7)
        axes.set_ylabel(plot["y_label"], color=_C["soft"], labelpad=7)
        axes.tick_params(length=0, labelcolor=_C["ink"], pad=5)
        drawing = {"curve": _curve, "frontier": _frontier}[plot["kind"]]
        drawing(axes, plot, {arm["name"]: arm for arm in arms})
        nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _standalone(buffer.getvalue(), f"{plot['title']}. {note}")


def undrawn(plot: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The arms of a figure that have no score to draw."""
    if plot["kind"] == "curve":
        asked = [arm for members in plot["lines"].values() for arm in members]
        metrics = {plot["metric"]}
    else:
        asked = [*plot["path"], *plot["beside"]]
        metrics = {plot["x_metric"], plot["y_metric"]}
    measured = {arm["name"] for arm in arms if metrics <= arm["scores"].keys()}
    return [name for name in asked if name not in measured]


def _curve(axes: Axes, plot: Mapping[str, Any], arms: Mapping[str, Any]) -> None:
    from matplotlib.transforms import ScaledTranslation

    places = list(range(len(plot["x"]))) if plot["scale"] == "even" else list(plot["x"])
    missing = undrawn(plot, list(arms.values()))
    ends, drawn = [], []
    for rank, (label, members) in enumerate(plot["lines"].items()):
        color, marker, dashes = _LINES[rank % len(_LINES)]
        shift = 4.5 * (rank - (len(plot["lines"]) - 1) / 2) / 72  # bars stand side by side
        move = axes.transData + ScaledTranslation(shift, 0, axes.figure.dpi_scale_trans)
        found = [
            (place, arms[name]["scores"][plot["metric"]])
            for place, name in zip(places, members, strict=True)
            if name not in missing
        ]
        shown: dict[str, Any] = {"color": _C[color], "transform": move}
        for place, e in found:
            axes.plot([place, place], [e["low"], e["high"]], lw=1.4, alpha=0.55, **shown)
        at, values = [place for place, _ in found], [e["value"] for _, e in found]
        axes.plot(at, values, ls=dashes, lw=1.8, **shown)
        axes.plot(at, values, marker, mfc=_C["paper"], mew=1.6, ms=6.5, zorder=3, **shown)
        drawn += [e for _, e in found]
        if found:
            ends.append((found[-1][1]["value"], label, color))
    if plot["scale"] == "log":
        axes.set_xscale("log")
    else:
        room = 0.2 if plot["scale"] == "even" else 0.05 * (max(places) - min(places)) or 0.5
        axes.set_xlim(min(places) - room, max(places) + room)
    axes.minorticks_off()
    axes.set_xticks(places, [f"{x:,g}" for x in plot["x"]])
    axes.xaxis.grid(False)
    _limits(axes.set_ylim, drawn)
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Names the lines at their right ends, pushed apart where they would overlap."""
    if not ends:
        return
    ends = sorted(ends)
    beside: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    texts = [
        axes.annotate(
            label, (1, value), (8, 0), color=_C[color], va="center", weight="bold", **beside
        )
        for value, label, color in ends
    ]
    assert axes.figure is not None
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # lays out: sizes are known
    step = 15.0
    heights = [float(axes.transData.transform((0, value))[1]) for value, _, _ in ends]
    wanted = heights.copy()
    for n in range(1, len(heights)):
        heights[n] = max(heights[n], heights[n - 1] + step)
    excess = max(0.0, heights[-1] - max(axes.bbox.y1, wanted[-1]))
    for n in reversed(range(len(heights))):
        above = heights[n + 1] - step if n + 1 < len(heights) else heights[n] - excess
        heights[n] = min(heights[n], above)
    for text, height, original in zip(texts, heights, wanted, strict=True):
        text.set_position((8, height - original))


def _frontier(axes: Axes, plot: Mapping[str, Any], arms: Mapping[str, Any]) -> None:
    missing = undrawn(plot, list(arms.values()))

    def points(names: Sequence[str]) -> list[Point]:
        return [
            Point(
                arms[name]["scores"][plot["x_metric"]],
                arms[name]["scores"][plot["y_metric"]],
                plot["labels"].get(name, name),
                _C[_ROLES[arms[name]["role"]][1]],
            )
            for name in names
            if name not in missing
        ]

    path, beside = points(plot["path"]), points(plot["beside"])
    axes.plot([p.x["value"] for p in path], [p.y["value"] for p in path], color=_C["blue"], lw=1.4)
    shown = [name for name in (*plot["path"], *plot["beside"]) if name not in missing]
    for name, p in zip(shown, [*path, *beside], strict=True):
        marker, edge, face = _ROLES[arms[name]["role"]]
        x, y = p.x["value"], p.y["value"]
        bar: dict[str, Any] = {"color": _C[edge], "lw": 1.3, "alpha": 0.5}
        axes.plot([p.x["low"], p.x["high"]], [y, y], **bar)
        axes.plot([x, x], [p.y["low"], p.y["high"]], **bar)
        axes.plot(x, y, marker, mec=_C[edge], mfc=_C[face], mew=1.5, ms=6.5, zorder=3)
    _limits(axes.set_xlim, [p.x for p in [*path, *beside]])
    _limits(axes.set_ylim, [p.y for p in [*path, *beside]], free=0.1)  # for the labels
    _name_the_marks(axes, {arms[name]["role"] for name in shown})
    assert axes.figure is not None
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # lays out: sizes are known
    axes.figure.set_layout_engine("none")  # type: ignore[union-attr]
    label_points(axes, path, beside, _C["ink"])


def _name_the_marks(axes: Axes, roles: set[str]) -> None:
    from matplotlib.lines import Line2D

    if len(roles) < 2:
        return
    keys = []
    for role, (marker, edge, face) in _ROLES.items():
        if role in roles:
            style: dict[str, Any] = {"mec": _C[edge], "mfc": _C[face], "mew": 1.5, "ms": 6.5}
            keys.append(Line2D([], [], ls="", marker=marker, label=role, **style))
    axes.figure.legend(
        handles=keys,
        loc="outside lower right",
        ncols=len(keys),
        frameon=False,
        labelcolor=_C["soft"],
        handletextpad=0.1,
        columnspacing=1.2,
    )


def _limits(set_limits: Any, found: Sequence[Estimate], free: float = 0.04) -> None:
    """0 to 1 for shares that use most of it; else from 0 where nothing is negative.

    `free` is what stays free above, as a share of the axis.
    """
    if not found:
        return
    low, high = min(e["low"] for e in found), max(e["high"] for e in found)
    if low >= 0 and 0.6 < high <= 1:
        set_limits(-0.04, 1 + free)
        return
    low = min(low, 0.0)
    whole = high - low or 1.0
    set_limits(low - 0.04 * whole, high + max(free, 0.06) * whole)


def _standalone(svg: str, said: str) -> str:
    """Fonts of the reader's machine, colours by the reader's scheme, and a spoken description."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([^;\"]*?)([0-9.]+)px [^;\"]*", _font, svg)
    dark = "\n".join(
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}'
        for light, dark in _SCHEMES.values()
        for kind in ("fill", "stroke")
    )
    style = f"svg {{ font-family: {_FONTS} }}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
    opening, _, rest = svg.partition(">")
    # The sheet stands in CDATA: what reads SVG as XML must find it whole.
    return (
        f'{opening} role="img">\n <title>{html.escape(said)}</title>\n'
        f' <style type="text/css"><![CDATA[\n{style}\n]]></style>{rest}'
    )


def _font(found: re.Match[str]) -> str:
    weight = "font-weight: 700; " if "bold" in found.group(1) or "700" in found.group(1) else ""
    return f"{weight}font-size: {found.group(2)}px"
