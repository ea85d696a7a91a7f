"""The result of a run as tables on screen: scores with intervals, then the cost of every step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.report import numbers
from tilth.report.costs import cost_table
from tilth.report.reading import read_run
from tilth.report.scores import comparison_of
from tilth.report.verdict import Verdict, relation, verdict_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["show"]

_STYLES = {"better": "green", "worse": "red"}


def show(run_folder: str | Path, console: Console | None = None) -> None:
    """Prints scores before and after, the paired difference, the verdict, and every step's cost.

    Args:
        run_folder: A folder that ``tilth run`` made.
        console: Where to print; standard output where none is given.

    Raises:
        ArtefactError: `run_folder` holds no readable ``run.json``.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console(emoji=False)
    run = read_run(run_folder)
    verdict = verdict_of(run)
    comparison = comparison_of(run)
    if comparison.get("arms"):
        console.print(_scores(comparison, verdict))
        first = next(iter(comparison["arms"].values()))["estimate"]
        seeds = numbers.counted(first["seeds"], "test seed")
        console.print(Text(f"{first['items']:,} items, {seeds}", style="dim"))
    console.print(_costs(cost_table(run)))
    for step in run.steps:
        if step.problem:
            console.print(Text(f"{step.id} ({step.do}): {step.problem}", style="red"))
    console.print(Text(str(verdict), style=f"bold {_STYLES.get(verdict.tone, '')}".strip()))
    for remark in verdict.remarks:
        console.print(Text(remark, style="dim"))


def _scores(comparison: dict[str, Any], verdict: Verdict) -> Table:
    from rich.table import Table
    from rich.text import Text

    level = f"{100 * comparison['level']:g}%"
    table = Table(title=f"Scores with {level} intervals", title_justify="left", box=None)
    table.add_column("arm", overflow="fold")
    table.add_column("score", justify="right")
    if comparison["differences"]:
        heading = f"less {comparison['baseline']}"
        table.add_column(Text(heading), justify="right")
        table.add_column("p", justify="right")
    if verdict.others:
        table.add_column(Text(f"{verdict.arm} less this"), justify="right")
    for name, arm in comparison["arms"].items():
        cells = [Text(name), Text(numbers.interval(arm["estimate"]))]
        if comparison["differences"]:
            other = comparison["differences"].get(name, {})
            p = other.get("p")
            cells += [_difference(other.get("estimate")), Text("" if p is None else f"{p:.2g}")]
        if verdict.others:
            cells.append(_difference(verdict.others.get(name)))
        table.add_row(*cells, style="bold" if name == verdict.arm else "")
    return table


def _difference(estimate: dict[str, Any] | None) -> Text:
    from rich.text import Text

    if not estimate:
        return Text("")
    style = _STYLES.get(relation(estimate), "")
    return Text(numbers.interval(estimate, sign=True), style=style)


def _costs(costs: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Cost of every step", title_justify="left", box=None, show_footer=True)
    table.add_column("step", footer="total", overflow="fold", min_width=12)
    for name, total in zip(costs["columns"], costs["total"], strict=True):
        heading = Text(name.replace(" ", "\n"))
        table.add_column(heading, justify="right", footer=Text(total), no_wrap=True)
    for step, cells in costs["rows"]:
        mark = " (from an earlier run)" if step.cached else ""
        table.add_row(Text(f"{step.id}{mark}"), *(Text(c) for c in cells))
    return table
