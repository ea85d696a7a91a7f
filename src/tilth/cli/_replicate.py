"""``tilth replicate``: published claims as runnable experiments."""

from __future__ import annotations

import typer

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Adds the command to `app`."""
