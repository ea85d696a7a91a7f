"""``tilth replicate``: published claims as runnable experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilth.cli import _console as console

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(
        epilog="Example: tilth replicate quickstart --quick", rich_help_panel="The almanac"
    )(replicate)


def replicate(  # noqa: PLR0917  typer names every one of them
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What to replicate.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer seeds and smaller cells: minutes.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Worker processes, one thread each.")] = 2,
    results: Annotated[Path, typer.Option(help="Folder of the committed results.")] = Path(
        "results"
    ),
    runs: Annotated[Path, typer.Option(help="Where the cells are kept.")] = Path("runs"),
    listing: Annotated[
        bool, typer.Option("--list", help="List what can be replicated, and stop.")
    ] = False,
    papers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the pages of papers from the results, and stop."),
    ] = None,
) -> None:
    """Measure a published claim and print it beside the measurement."""
    from tilth import replicate as frame

    if papers is not None:
        console.out().print(f"written: {frame.papers(results, papers)}", markup=False)
    elif listing or name is None:
        known = [frame.load(one) for one in frame.names()]
        console.table([(one.system, one.title) for one in known], "name", "what is claimed")
    else:
        with console.resumable():
            chosen = frame.load(name)
            result = frame.replicate(
                chosen, quick=quick, workers=workers, results=results, runs=runs, say=console.say
            )
        frame.show(result, console.Console(emoji=False))
        if not result.complete:
            raise typer.Exit(1)
