"""The result of a run as tables on screen: scores with intervals, then the cost of every step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.report import numbers
from tilth.report.costs import cost_table
from tilth.report.reading import read_run
from tilth.report.scores import comparison_of
from tilth.report.verdict import relation, verdict_of

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

    console = console or Console()
    run = read_run(run_folder)
    verdict = verdict_of(run)
    comparison = comparison_of(run)
    if comparison.get("arms"):
        console.print(_scores(comparison, verdict.arm))
    console.print(_costs(cost_table(run)))
    for step in run.steps:
        if step.problem:
            console.print(Text(f"{step.id} ({step.do}): {step.problem}", style="red"))
    console.print(Text(str(verdict), style=f"bold {_STYLES.get(verdict.tone, '')}".strip()))
    for remark in verdict.remarks:
        console.print(Text(remark, style="dim"))


def _scores(comparison: dict[str, Any], main: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    level = f"{100 * comparison['level']:g}%"
    table = Table(title=f"Scores with {level} intervals", title_justify="left", box=None)
    table.add_column("arm", overflow="fold")
    table.add_column("score", justify="right")
    if comparison["differences"]:
        heading = f"less {comparison['baseline']} (paired)"
        table.add_column(Text(heading), justify="right")
        table.add_column("p", justify="right")
    table.add_column("seeds", justify="right")
    table.add_column("items", justify="right")
    for name, arm in comparison["arms"].items():
        estimate, other = arm["estimate"], comparison["differences"].get(name)
        cells = [Text(name), Text(numbers.interval(estimate))]
        if comparison["differences"]:
            cells += _difference(other)
        cells += [Text(str(estimate["seeds"])), Text(f"{estimate['items']:,}")]
        table.add_row(*cells, style="bold" if name == main else "")
    return table


def _difference(found: dict[str, Any] | None) -> list[Text]:
    from rich.text import Text

    if not found:
        return [Text(""), Text("")]
    style = _STYLES.get(relation(found["estimate"]), "")
    p = found.get("p")
    return [
        Text(numbers.interval(found["estimate"], sign=True), style=style),
        Text(f"{p:.2g}" if p is not None else ""),
    ]


def _costs(costs: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Cost of every step", title_justify="left", box=None, show_footer=True)
    table.add_column("step", footer="total", overflow="fold")
    for name, total in zip(costs["columns"], costs["total"], strict=True):
        table.add_column(name, justify="right", footer=Text(total))
    for step, cells in costs["rows"]:
        mark = " (from an earlier run)" if step.cached else ""
        table.add_row(Text(f"{step.id}{mark}"), *(Text(c) for c in cells))
    return table
