"""A replication's result on screen: every claim beside its measurement, then the arms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilth.report import numbers

if TYPE_CHECKING:
    from rich.console import Console

    from tilth.replicate.results import Result

__all__ = ["show"]

_STYLES = {"reproduced": "green", "contradicted": "red"}


def show(result: Result, console: Console | None = None) -> None:
    """Prints the claims with published figure, measured difference and verdict.

    Args:
        result: From :func:`tilth.replicate.replicate`.
        console: Where to print; standard output where none is given.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(emoji=False)
    body = result.body
    level = f"{100 * body['level']:g}%"
    quick = ", quick" if body["quick"] else ""
    title = Text(f"{body['system']}: {body['title']}{quick}", style="bold")
    claims = Table(title=title, title_justify="left", box=None)
    for heading in ("claim", "published", f"measured [{level}]", "verdict"):
        claims.add_column(heading, overflow="fold")
    for claim in body["claims"]:
        verdict = claim["verdict"]
        claims.add_row(
            Text(claim["statement"]),
            Text(claim["published"]),
            Text(measured(claim)),
            Text(verdict, style=_STYLES.get(verdict, "")),
        )
    arms = Table(title="Arms", title_justify="left", box=None)
    for heading in ("arm", "role", "metric", "score"):
        arms.add_column(heading, overflow="fold")
    for arm in body["arms"]:
        for metric, estimate in arm["scores"].items():
            found = Text(numbers.interval(estimate))
            arms.add_row(Text(arm["name"]), arm["role"], Text(metric), found)
    console.print(claims, arms)
    for cell in body["failed"]:
        named = f"failed: {cell['arm']}/{cell['seed']}: {cell['error']}"
        console.print(Text(named, style="red"))
    seconds = numbers.duration(body["cost"]["seconds"])
    console.print(Text(f"{body['cells']} cells, {seconds} in all; written to {result.path}"))


def measured(claim: dict[str, Any]) -> str:
    """The difference that decided a claim, or why there is none."""
    if claim["estimate"] is None:
        return str(claim["why"])
    return numbers.interval(claim["estimate"], sign=True)
