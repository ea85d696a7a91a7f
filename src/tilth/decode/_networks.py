"""Loading the models of a composition, each once.

Roles that are adapters on the same model, or that model itself, share its weights and one forward
pass: their rows lie in one batch, and every row meets its own adapter. An adapter that cannot be
mixed (anything but plain LoRA) is merged into a model of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tilth.decode._worn import Outfit, dress, mixable
from tilth.errors import ModelError, TilthError
from tilth.models.generation import Forward, end_ids
from tilth.models.load import Device, Dtype, counted_parameters, load
from tilth.models.reference import Reference

__all__ = ["BARE", "Network", "Networks", "Seat"]

BARE = ""
"""What a row without an adapter wears."""


class Network:
    """One loaded model, and the adapters that its rows may wear.

    Attributes:
        forward: Its forward pass.
        model: The transformers model.
        ends: Tokens that its generation settings and tokenizer call the end.
        window: Positions it reads at most, or None.
        parameters: Parameters in matrix products, for the FLOPs.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        self.model = model
        self.forward = Forward(model)
        self.ends = end_ids(model, tokenizer) if tokenizer is not None else frozenset()
        self.window: int | None = getattr(model.config, "max_position_embeddings", None)
        self.parameters = counted_parameters(model)
        self._adapters: dict[Path, str] = {}
        self._outfit: Outfit = []

    def adapter(self, folder: Path) -> str:
        """The name of an adapter, which is loaded on first use.

        Raises:
            ModelError: It does not fit.
        """
        if folder not in self._adapters:
            name = f"adapter {len(self._adapters)}"
            dress(self.model, folder, name, self._outfit)
            self._adapters[folder] = name
        return self._adapters[folder]

    def wear(self, adapters: Sequence[str], rows: int) -> None:
        """The next pass has `rows` rows of each of `adapters`, one after another."""
        self._outfit[:] = [
            (name, slice(i * rows, (i + 1) * rows)) for i, name in enumerate(adapters) if name
        ]


@dataclass(frozen=True)
class Seat:
    """Where a role sits: a network, and the adapter that its rows wear."""

    network: Network
    adapter: str = BARE


@dataclass
class Networks:
    """The models that are loaded, shared by compositions that differ only in numbers.

    Attributes:
        device: Where they are.
        dtype: In which precision.
    """

    device: Device | str = "auto"
    dtype: Dtype = "auto"
    _loaded: dict[Any, Network] = field(default_factory=dict)

    def seats(self, roles: dict[str, Reference]) -> dict[str, Seat]:
        """A seat for every role.

        Args:
            roles: Role to model.

        Raises:
            ModelError: A model cannot be loaded; the role is named.
        """
        found = {}
        for name, model in roles.items():
            try:
                found[name] = self._seat(model, [r for n, r in roles.items() if n != name])
            except MemoryError as error:
                raise ModelError(
                    f"the role {name!r} does not fit into memory", str(model)
                ) from error
            except TilthError as error:
                error.problem = f"the role {name!r}: {error.problem}"
                raise
        return found

    def _seat(self, model: Reference, others: list[Reference]) -> Seat:
        stem = _stem(model)
        family = [r for r in others if _key(r) == stem or (_stem(r) == stem and _mixable(r))]
        if stem and family and _mixable(model):
            network = self._network(replace(model, adapters=model.adapters[:-1]))
            return Seat(network, network.adapter(model.adapters[-1]))
        return Seat(self._network(model))

    def _network(self, model: Reference) -> Network:
        if _key(model) not in self._loaded:
            self._loaded[_key(model)] = Network(*load(model, self.device, self.dtype))
        return self._loaded[_key(model)]


def _key(model: Reference) -> tuple[str, str, tuple[Path, ...]]:
    return (model.kind, model.base, model.adapters)


def _stem(model: Reference) -> tuple[str, str, tuple[Path, ...]] | None:
    """The model under the last adapter; None where there is none."""
    return (model.kind, model.base, model.adapters[:-1]) if model.adapters else None


def _mixable(model: Reference) -> bool:
    return bool(model.adapters) and mixable(model.adapters[-1])
