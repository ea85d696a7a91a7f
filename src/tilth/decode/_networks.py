"""Loading the models of a composition, each once.

Roles that are adapters on the same model, or that model itself, share its weights and one forward
pass: their rows lie in one batch, and every row meets its own adapter (peft's mixed-adapter batch).
An adapter that cannot be mixed (anything but plain LoRA) is merged into a model of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tilth.errors import ModelError, TilthError
from tilth.models.generation import Forward, end_ids
from tilth.models.load import Device, Dtype, counted_parameters, load
from tilth.models.reference import Reference

__all__ = ["Network", "Networks", "Seat"]

BASE = "__base__"
"""What peft calls a row without an adapter."""


class Network:
    """One loaded model, and the adapters that its rows may wear.

    Attributes:
        forward: Its forward pass.
        model: The transformers model.
        ends: Tokens that its generation settings and tokenizer call the end.
        window: Positions it reads at most, or None.
        parameters: Parameters in matrix products, for the FLOPs.
        mixed: Whether rows wear adapters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        peft: Any = None,
        adapter: Path | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.forward = Forward(model)
        self.ends = end_ids(model, tokenizer)
        self.window: int | None = getattr(model.config, "max_position_embeddings", None)
        self.parameters = counted_parameters(model)
        self._peft = peft
        self._adapters = {adapter: "default"}  # what peft calls the first one
        self._worn: list[str] = []
        self._asking: set[int] = set()
        self._teach_layers()

    @property
    def mixed(self) -> bool:
        """Whether rows wear adapters."""
        return self._peft is not None

    def _teach_layers(self) -> None:
        """Every LoRA layer asks for the rows' adapters; peft would tell them anew at each step."""
        if not self.mixed:
            return
        from peft.tuners.lora import LoraLayer

        def ask(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "adapter_names": self._worn}

        for module in self.model.modules():
            if isinstance(module, LoraLayer) and id(module) not in self._asking:
                self._asking.add(id(module))
                module.register_forward_pre_hook(ask, with_kwargs=True)

    def adapter(self, folder: Path) -> str:
        """The name of an adapter, which is loaded on first use.

        Raises:
            ModelError: It does not fit.
        """
        if folder not in self._adapters:
            name = f"adapter{len(self._adapters)}"
            try:
                self._peft.load_adapter(str(folder), adapter_name=name, is_trainable=False)
            except (RuntimeError, ValueError) as error:
                raise ModelError(
                    f"this adapter does not fit ({str(error).splitlines()[-1][:200]})",
                    where=str(folder),
                    fix="name its own base: BASE+ADAPTER",
                ) from error
            self._peft.eval()
            self._adapters[folder] = name
            self._teach_layers()
        return self._adapters[folder]

    def wear(self, adapters: Sequence[str], rows: int) -> None:
        """The next pass has `rows` rows of each of `adapters`, one after another."""
        if self.mixed:
            self._worn[:] = [name for name in adapters for _ in range(rows)]


@dataclass(frozen=True)
class Seat:
    """Where a role sits: a network, and the adapter that its rows wear."""

    network: Network
    adapter: str = BASE


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
        family = [r for r in others if _stem(r) == stem or _key(r) == stem]
        rides = _mixable(model) and any(_key(r) == stem or _mixable(r) for r in family)
        carries = any(_mixable(r) and _stem(r) == _key(model) for r in others)
        if rides:
            network = self._mixed(stem, model)
            return Seat(network, network.adapter(model.adapters[-1]))
        if carries:
            rider = next(r for r in others if _mixable(r) and _stem(r) == _key(model))
            return Seat(self._mixed(_key(model), rider))
        key = ("alone", _key(model))
        if key not in self._loaded:
            self._loaded[key] = Network(*load(model, self.device, self.dtype))
        return Seat(self._loaded[key])

    def _mixed(self, stem: Any, rider: Reference) -> Network:
        """The network of `stem`, made with the adapter of `rider`."""
        key = ("mixed", stem)
        if key not in self._loaded:
            peft: Any
            peft, tokenizer = load(rider, self.device, self.dtype, merge=False)
            self._loaded[key] = Network(peft.get_base_model(), tokenizer, peft, rider.adapters[-1])
        return self._loaded[key]


def _key(model: Reference) -> tuple[str, str, tuple[Path, ...]]:
    return (model.kind, model.base, model.adapters)


def _stem(model: Reference) -> tuple[str, str, tuple[Path, ...]] | None:
    """The model under the last adapter; None where there is none."""
    return (model.kind, model.base, model.adapters[:-1]) if model.adapters else None


def _mixable(model: Reference) -> bool:
    """Whether the last adapter is a LoRA that can share a batch with the bare model."""
    if not model.adapters:
        return False
    config = json.loads((model.adapters[-1] / "adapter_config.json").read_text("utf-8"))
    plain = config.get("peft_type") == "LORA" and config.get("bias", "none") == "none"
    extras = ("use_dora", "modules_to_save", "trainable_token_indices", "alora_invocation_tokens")
    return plain and not any(config.get(name) for name in extras)


def parent_of(model: Reference) -> Reference:
    """The model that the last adapter stands on."""
    return replace(model, adapters=model.adapters[:-1])
