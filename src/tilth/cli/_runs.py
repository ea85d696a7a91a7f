"""``tilth run``, ``validate``, ``report``, ``methods``, ``env``: recipes and their surroundings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilth.cli import _console as console
from tilth.errors import RecipeError, nearest
from tilth.registry import VERBS, methods

__all__ = ["add"]

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY.PATH=VALUE", help="Overrides, e.g. keep.count=100."),
]
Runs = Annotated[Path, typer.Option("--runs", help="Where run folders are kept.")]


def add(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command, example in (
        (run, "tilth run recipes/quickstart.yaml write.count=200"),
        (validate, "tilth validate recipes/quickstart.yaml keep.count=100"),
        (report, "tilth report runs/quickstart"),
        (methods_, "tilth methods select"),
        (env, "tilth env"),
    ):
        name = command.__name__.strip("_")
        app.command(name, epilog=f"Example: {example}", rich_help_panel="Recipes")(command)


def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its cost; run nothing.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the HTML report at the end.")
    ] = True,
) -> None:
    """Run a recipe, or continue it where it stopped."""
    import tilth.run
    from tilth.recipe import Recipe

    read = Recipe.read(recipe, overrides or ())
    folder = runs / read.name
    if dry_run:
        _show_plan(tilth.run.plan(read, folder), folder)
        return
    with console.resumable():
        result = tilth.run.run(read, folder, say=console.say, watch=console.watch)
    if html:
        import tilth.report

        page = tilth.report.write(result.folder)
        tilth.report.show(result.folder, console.Console(emoji=False))
        console.out().print(f"report: {page}", style="bold")


def _show_plan(planned: list, folder: Path) -> None:
    rows = []
    for step in planned:
        if step.finished:
            state = "finished"
        elif step.waits_for:
            state = f"to run, after {', '.join(step.waits_for)}"
        else:
            state = "to run"
        cost = "" if step.finished else console.amounts(step.estimate) or "not estimated"
        rows.append((step.id, step.do, step.key[:12] or "-", state, cost))
    console.table(rows, "step", "method", "key", "state", "estimated cost")
    left = sum(not step.finished for step in planned)
    console.out().print(f"{left} of {len(planned)} steps to run in {folder}; nothing was run")


def validate(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check a recipe, every setting and every file it names, without running it."""
    from tilth.recipe import Recipe
    from tilth.validate import validate as check

    steps = check(Recipe.read(recipe, overrides or ()))
    names = ", ".join(one.step.id for one in steps)
    console.out().print(f"[green]✓[/] {recipe}: {len(steps)} steps are in order ({names})")


def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
) -> None:
    """Rebuild the HTML report of a run and show its table."""
    import tilth.report

    page = tilth.report.write(run_folder)
    tilth.report.show(run_folder, console.Console(emoji=False))
    console.out().print(f"report: {page}", style="bold")


def methods_(
    verb: Annotated[str | None, typer.Argument(metavar="VERB", help="Only this verb.")] = None,
) -> None:
    """List the methods, one line each."""
    if verb is not None and verb not in VERBS:
        raise RecipeError(
            f"there is no verb {verb!r}",
            fix=nearest(verb, VERBS) or f"the verbs are {', '.join(VERBS)}",
        )
    listed = methods(verb)
    if listed:
        console.table([(n, e.summary()) for n, e in listed.items()], "method", "what it does")
    else:
        console.out().print(f"no method of the verb {verb!r} is installed yet")


def env() -> None:
    """Show versions, threads, memory and devices, for a bug report."""
    from tilth.cli._env import facts

    console.table(facts(), "what", "here")
