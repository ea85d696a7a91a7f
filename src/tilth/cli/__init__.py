"""The command line: ``tilth run recipe.yaml``, and one sub-command per verb.

Nothing heavy is imported to show help, list methods or validate a recipe: each command imports
what it runs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from tilth import __version__
from tilth.cli import _adapters, _decode, _methods, _replicate, _runs, _serve, _world
from tilth.cli._console import INTERRUPTED, explain, interrupted, noted
from tilth.errors import TilthError
from tilth.registry import VERBS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The words after ``tilth``; those of the process by default.

    Returns:
        0 where all went well, 1 for an error, 2 for wrong usage, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or bool(os.environ.get("TILTH_DEBUG"))
    words = [word for word in words if word != "--debug"]
    try:
        with noted():
            typer.main.get_command(_app(words))(args=words, prog_name="tilth")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        interrupted()
        return INTERRUPTED
    except TilthError as error:
        if debug:
            raise
        explain(error)
        return 1
    return 0


def _app(words: Sequence[str]) -> typer.Typer:
    """The commands; only the verb and the method that `words` name get their options."""
    app = typer.Typer(
        name="tilth",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Start here: tilth run recipes/quickstart.yaml",
    )
    app.callback()(_start)
    _runs.add(app)
    for verb in VERBS:
        commands = _methods.commands(verb, words)
        if verb == "tune":
            _adapters.add(commands)
        if verb == "decode":
            _decode.add_decode(commands, VERBS[verb])
        app.add_typer(commands, name=verb, rich_help_panel="Verbs")
    _replicate.add(app)
    _decode.add_chat(app)
    _serve.add(app)
    _world.add(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        print(f"tilth {__version__}")
        raise typer.Exit


def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (or set TILTH_DEBUG).")
    ] = False,
) -> None:
    """A workbench for tuning models, with evidence.

    From a page of instructions to a better model, and a report that proves it.
    """
