"""Which engine answers for a model reference: a model here, several combined, or an endpoint."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from tilth.cost import Ledger
from tilth.errors import EngineError
from tilth.models.composed import OPENER
from tilth.models.engine import Engine
from tilth.models.reference import Reference, resolve

__all__ = ["engine"]

_BOTH = {"cache", "progress"}
_LOCAL = {"batch_size", "device", "dtype", "threads", "long_prompts"}
_ENDPOINT = {
    "concurrency",
    "retries",
    "timeout",
    "first_wait",
    "logprobs",
    "embeddings",
    "prices",
}


def engine(ref: str | Reference, *, ledger: Ledger | None = None, **options: Any) -> Engine:
    """The engine for a model reference: a local model, several combined, or an endpoint.

    Args:
        ref: A model reference; see :func:`tilth.models.resolve`.
        ledger: Books the cost; a new one where none is given.
        options: ``cache`` (a JSONL file of answers, which makes both engines resumable) and
            ``progress`` for both; ``batch_size``, ``device``, ``dtype``, ``threads`` and
            ``long_prompts`` for models on this machine; ``concurrency``, ``retries``, ``timeout``,
            ``first_wait``, ``logprobs``, ``embeddings`` and ``prices`` for an endpoint. An option
            of the other kind is ignored, so that a recipe changes its model by one line.

    Raises:
        EngineError: An unknown option.
        ModelError: The reference cannot be resolved or loaded.
    """
    reference = ref if isinstance(ref, Reference) else resolve(ref)
    unknown = set(options) - _LOCAL - _ENDPOINT - _BOTH
    if unknown:
        raise EngineError(
            f"unknown engine option {sorted(unknown)[0]!r}",
            where=str(reference),
            fix=f"the options are {', '.join(sorted(_LOCAL | _ENDPOINT | _BOTH))}",
        )
    books = ledger or Ledger()
    if reference.kind == "endpoint":
        from tilth.models.endpoint import EndpointEngine

        kept = {k: v for k, v in options.items() if k in _ENDPOINT | _BOTH}
        return EndpointEngine(reference, ledger=books, **kept)
    from tilth.models.local import LocalEngine

    kept = {k: v for k, v in options.items() if k in _LOCAL | _BOTH}
    if reference.kind == "composed":
        composed: Engine = resolve_name(OPENER)(reference, ledger=books, **kept)
        return composed
    return LocalEngine.open(reference, ledger=books, **kept)
