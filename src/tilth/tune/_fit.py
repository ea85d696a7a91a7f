"""Which adapter goes with which model and which batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilth.errors import RecipeError
from tilth.models.adapters.attach import merges
from tilth.models.reference import Reference
from tilth.tune.adapters import Prefix, Prompt

if TYPE_CHECKING:
    from tilth.tune.sft import SFT

__all__ = ["prompt_of", "require_fit"]


def prompt_of(settings: SFT) -> int:
    """Learnt positions before each row."""
    adapter = settings.adapter
    return adapter.tokens if isinstance(adapter, Prompt | Prefix) else 0


def require_fit(settings: SFT, reference: Reference) -> None:
    """Refuses what could not be trained or saved, before anything is loaded.

    Raises:
        RecipeError: The adapter does not go with the batching, or with adapters of the base.
    """
    adapter = settings.adapter
    if prompt_of(settings) and settings.batching == "packed":
        raise RecipeError(
            f"packed rows would share one {adapter.kind}",
            where="batching",
            fix="use batching: grouped",
        )
    kept = [folder for folder in reference.adapters if not merges(folder)]
    if kept:
        raise RecipeError(
            "the model carries an adapter that cannot be added to its weights",
            where=str(kept[0]),
            fix="tune from its base",
        )
    if reference.adapters and adapter.kind != "full" and not adapter.merges:
        raise RecipeError(
            f"{adapter.kind} cannot be added to the weights, and no file can name as its base a "
            "model that carries an adapter",
            where="adapter",
            fix="tune from a model without adapters, or use an adapter that merges, such as lora",
        )
