"""``tilth seedlings`` and ``tilth almanac``: the little world and the models that know it."""

from __future__ import annotations

import typer

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
