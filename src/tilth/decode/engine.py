"""Engines for composed models, by their reference.

    >>> from tilth.decode.engine import open_composed                        # doctest: +SKIP
    >>> model = open_composed("eft:base=seedling:large,expert=tuned,anti=seedling:small")
    ...                                                                      # doctest: +SKIP
    >>> model.chat([[{"role": "user", "content": "How much is 2 and 3?"}]])  # doctest: +SKIP

``tilth.models.engine`` opens the same references. Such an engine can also stream, tell the
log-probability of every token under every role, and take other weights on loaded models.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.cost import Ledger
from tilth.decode.composition import composition_of
from tilth.models.load import Device, Dtype
from tilth.models.reference import Reference, digest, resolve

if TYPE_CHECKING:
    from tilth.decode._engine import ComposedEngine

__all__ = ["open_composed"]


def open_composed(
    ref: str | Reference,
    *,
    ledger: Ledger | None = None,
    device: Device | str = "auto",
    dtype: Dtype = "auto",
    cache: Path | str | None = None,
    **options: Any,
) -> ComposedEngine:
    """The engine of a composed model, or of a plain local one with the same interface.

    Args:
        ref: A composed reference, or one of a local model, which then is a composition of one.
        ledger: Books the cost.
        device: As in :func:`tilth.models.load.load`.
        dtype: As there.
        cache: A JSONL file of answers.
        options: Those of :class:`~tilth.decode._engine.ComposedEngine`.

    Raises:
        ModelError: A setting is out of range, or a model cannot be loaded or combined.
    """
    from tilth.decode._engine import ComposedEngine
    from tilth.decode._networks import Networks

    reference = ref if isinstance(ref, Reference) else resolve(ref)
    composition = composition_of(reference)
    return ComposedEngine(
        composition,
        Networks(device, dtype),
        digest=digest(reference) if cache is not None else "",
        cache=cache,
        ledger=ledger,
        **options,
    )
