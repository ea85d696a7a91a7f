"""How large data and models are, from file sizes alone: for estimates, without loading anything."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from tilth.errors import TilthError
from tilth.models.reference import resolve

__all__ = ["parameters_of", "reading", "rows_and_tokens"]

BYTES_PER_TOKEN = 4.0
"""Bytes of JSON per token of the conversation; usual for English, good to a factor of 2."""

_SAMPLE = 1 << 20


def parameters_of(ref: str) -> int:
    """Weights of a local model, from the headers of its safetensors files; 0 where unknown."""
    try:
        reference = resolve(ref)
    except TilthError:  # an earlier step has yet to make it
        return 0
    if reference.kind not in ("folder", "encoder"):
        return 0
    return sum(_weights(path) for path in sorted(Path(reference.base).glob("*.safetensors")))


def _weights(path: Path) -> int:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")


def rows_and_tokens(ref: str) -> tuple[int, float]:
    """Rows of a JSON Lines file or rows artefact and tokens of all rows, about; 0 where unknown."""
    path = Path(ref) / "rows.jsonl" if Path(ref).is_dir() else Path(ref)
    if path.suffix != ".jsonl" or not path.is_file():
        return 0, 0.0
    size = path.stat().st_size
    with path.open("rb") as file:
        sample = file.read(_SAMPLE)
    lines = max(1, sample.count(b"\n"))
    return round(size * lines / max(1, len(sample))), size / BYTES_PER_TOKEN


def reading(data: str, model: str) -> dict[str, float]:
    """What it costs, about, that a model reads every row of a file once; empty where unknown.

    In the words of :class:`tilth.cost.Ledger`: ``tokens_read``, and ``flops`` as twice the weights
    per token.
    """
    rows, tokens = rows_and_tokens(data)
    if rows == 0:
        return {}
    return {"tokens_read": float(round(tokens)), "flops": 2.0 * parameters_of(model) * tokens}
