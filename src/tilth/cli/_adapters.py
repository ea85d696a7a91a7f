"""``tilth tune adapters``: what each adapter trains and costs, measured on a model."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import track

from tilth.cli import _console as console

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Adds the command to the commands of the verb ``tune``."""
    app.command("adapters", epilog="Example: tilth tune adapters --model seedling:large")(adapters)


def adapters(  # noqa: PLR0917
    model: Annotated[str, typer.Option(help="A local model.")] = "seedling:small",
    only: Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="KIND:NAME=VALUE,...", help="One of them; repeatable."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 5,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 8,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a row.")] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Measure every adapter on a model: trained weights, memory and seconds of a step."""
    from tilth.tune.adapter_costs import adapter_costs
    from tilth.tune.adapters import MEMBERS, adapter_settings

    try:
        asked = [str(adapter_settings(text)) for text in only or MEMBERS]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--adapter") from error
    listed, left_out = [], []
    costs = adapter_costs(model, asked, steps=steps, rows=rows, length=length, device=device)
    screen = console.err()
    quiet = not screen.is_terminal
    for cost in track(
        costs, "measuring", len(asked), console=screen, transient=True, disable=quiet
    ):
        kind = MEMBERS[cost.adapter.partition(":")[0]]
        if cost.problem:
            left_out.append(f"{cost.adapter} does not go with this model: {cost.problem}")
            continue
        listed.append(
            [
                cost.adapter,
                f"{cost.trained:,}",
                f"{cost.share:.2%}",
                f"{cost.saved_bytes / 2**20:.2f} MiB",
                f"{cost.memory_bytes / 2**20:,.0f} MiB",
                f"{cost.step_seconds:.3g} s",
                "yes" if kind.merges else "no",
                "yes" if kind.sees_images else "no",
            ]
        )
    headings = ("trained", "share", "saved", "memory", "step", "merges", "images too")
    console.table(listed, "adapter", *headings)
    for line in left_out:
        console.out().print(escape(line))
    console.out().print(
        f"[dim]{model}, {rows} rows of {length} tokens, float32; memory is above that of the "
        "libraries[/]"
    )
