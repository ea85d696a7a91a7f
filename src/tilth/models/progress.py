"""A progress bar that counts rows, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["row_bar"]


@contextmanager
def row_bar(title: str, rows: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many more rows are done.

    Args:
        title: What is going on.
        rows: How many rows there are.
        shown: Whether to draw anything.
    """
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=rows)
        yield lambda done: bar.advance(task, done)
