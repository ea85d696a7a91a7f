"""What the commands print: progress of a run, errors in three parts, small tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tilth.errors import TilthError, TilthWarning

if TYPE_CHECKING:
    from tilth.run import Progress

__all__ = [
    "INTERRUPTED",
    "Console",
    "amounts",
    "err",
    "explain",
    "interrupted",
    "noted",
    "one_line",
    "out",
    "resumable",
    "say",
    "table",
    "watch",
]

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it (128 + SIGINT)."""


def out() -> Console:
    """Standard output; made on each use, since tests and pipes replace it."""
    return _plain()


def err() -> Console:
    """Standard error, where progress goes."""
    return _plain(stderr=True)


def _plain(*, stderr: bool = False) -> Console:
    """A console that changes no words: rich would make a plant of ``:seedling:``."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


def say(line: str) -> None:
    """Prints one line of a running step."""
    out().print(f"    {escape(line)}", style="dim")


def explain(error: TilthError) -> None:
    """Prints what is wrong, where, and what to do, on standard error."""
    console = err()
    console.print(f"[bold red]error:[/] {escape(str(error))}")


@contextmanager
def noted() -> Iterator[None]:
    """Prints tilth's own warnings as a note, without the line of code that gave them."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *more: Any) -> None:
            if issubclass(category, TilthWarning):
                console = err()
                console.print(f"[bold yellow]note:[/] {escape(str(message))}")
            else:
                shown(message, category, *more)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def interrupted() -> None:
    """Says that nothing is lost."""
    console = err()
    console.print(
        "[bold yellow]interrupted:[/] finished work is kept; resume with the same command"
    )


@contextmanager
def resumable() -> Iterator[None]:
    """Ends the command with exit code 130 and a word of comfort on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted()
        raise typer.Exit(INTERRUPTED) from None


def watch(progress: Progress) -> None:
    """Prints a line when a step begins and one when it is finished."""
    record = progress.record
    head = f"{progress.index}/{progress.total} [bold]{escape(record.id)}[/] {escape(record.do)}"
    if record.status == "running":
        out().print(f"[cyan]▸[/] {head}")
    else:
        how = "cached" if record.cached else f"ran {record.seconds:.1f} s"
        out().print(f"[green]✓[/] {head}  [dim]{how}[/]  {escape(one_line(progress.metrics))}")


def one_line(metrics: Mapping[str, Any], most: int = 6) -> str:
    """The plain numbers and words of `metrics` in one line."""
    plain = [(k, v) for k, v in metrics.items() if isinstance(v, int | float | str)]
    return "  ".join(f"{name}={_short(value)}" for name, value in plain[:most])


def amounts(cost: Mapping[str, float]) -> str:
    """What was spent, in one line; what is zero is left out."""
    return "  ".join(f"{name}={_short(value)}" for name, value in cost.items() if value)


def table(rows: Sequence[Sequence[str]], *headings: str) -> None:
    """Prints `rows` below `headings`."""
    grid = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    Console(highlight=False, emoji=False).print(grid)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
