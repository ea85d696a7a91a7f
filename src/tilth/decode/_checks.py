"""What can be wrong with a composition before it answers: vocabularies, parents, ends."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tilth.decode.composition import Composition, Role
from tilth.errors import ModelError, TilthWarning
from tilth.models.reference import Reference, digest

__all__ = ["CompositionWarning", "parent_problem", "shared_vocabulary", "warn"]

_SHAPE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


class CompositionWarning(TilthWarning):
    """A composition that computes, but perhaps not what is meant."""


def warn(text: str) -> str:
    """Warns, and returns what was said."""
    warnings.warn(text, CompositionWarning, stacklevel=2)
    return text


def shared_vocabulary(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], lead: str
) -> tuple[int, str]:
    """How many tokens all roles share, and a remark where one has more.

    Padding of the embedding beyond a tokenizer's own tokens does not count.

    Args:
        tokenizers: Role to tokenizer.
        lead: The role that the others are held against.

    Raises:
        ModelError: Two tokenizers give an id different tokens; the first one is named.
    """
    first = tokenizers[lead]
    pieces = first.convert_ids_to_tokens(list(range(len(first))))
    size = len(pieces)
    remark = ""
    for role, other in tokenizers.items():
        if other is first:
            continue
        theirs = other.convert_ids_to_tokens(list(range(len(other))))
        for i, (a, b) in enumerate(zip(pieces, theirs, strict=False)):
            if a != b:
                raise ModelError(
                    f"the roles {lead!r} and {role!r} have different tokenizers: token {i} is "
                    f"{a!r} to the one and {b!r} to the other",
                    where=f"roles {lead!r} and {role!r}",
                    fix="combine models of one family, which share their vocabulary",
                )
        if len(theirs) != len(pieces):
            more, who = max((len(pieces), lead), (len(theirs), role))
            remark = (
                f"the role {who!r} has {more - min(len(pieces), len(theirs))} tokens more than the "
                "others; they are cut off"
            )
        size = min(size, len(theirs))
    return size, remark


def parent_problem(composition: Composition) -> str:
    """Why the anti-expert may not be the model that an expert was tuned from; ``""`` if it may.

    An adapter names its base, which is compared by content. Of whole models only the shape is
    known: one whose shape differs cannot be the parent.
    """
    named = {role.name: role for role in composition.roles}
    anti = named.get("anti")
    experts = [named[name] for name in ("expert", "first", "second") if name in named]
    problems = [found for e in experts if anti and (found := _unlike(e, anti))]
    return "; ".join(problems)


def _unlike(expert: Role, anti: Role) -> str:
    model, parent = expert.model, anti.model
    if len(model.adapters) > len(parent.adapters):
        stem = replace(model, adapters=model.adapters[: len(parent.adapters)])
        if (stem.kind, stem.base, stem.adapters) == (parent.kind, parent.base, parent.adapters):
            return ""
        if digest(stem) != digest(parent):
            return (
                f"the role {expert.name!r} is an adapter of {stem.base}, not of {parent}: its "
                f"difference from {anti.name!r} is not what tuning has changed"
            )
        return ""
    ours, theirs = _shape(model), _shape(parent)
    differing = [k for k in _SHAPE if ours.get(k) != theirs.get(k)] if ours and theirs else []
    if differing:
        key = differing[0]
        return (
            f"the role {anti.name!r} cannot be the parent of {expert.name!r}: its {key} is "
            f"{theirs.get(key)}, not {ours.get(key)}"
        )
    return ""


def _shape(model: Reference) -> dict[str, object]:
    path = Path(model.base) / "config.json"
    if model.kind != "folder" or not path.is_file():
        return {}
    found: dict[str, object] = json.loads(path.read_text("utf-8"))
    return found
