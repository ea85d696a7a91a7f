"""What adapters of ours share: how they enter a model, and how peft learns of them."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftConfig
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

__all__ = ["OwnLayer", "OwnTuner", "register"]


class OwnLayer(nn.Module, BaseTunerLayer):
    """A module of the base model with the adapters that are on it, each under its name."""

    def __init__(self, base_layer: nn.Module, name: str, config: PeftConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters: list[str] = []
        self._prepare()
        self.add(name, config)
        self.set_adapter(name, inference_mode=config.inference_mode)

    def add(self, name: str, config: Any) -> None:
        """Makes the weights of the adapter `name`."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Makes the containers that :attr:`adapter_layer_names` lists."""
        raise NotImplementedError

    def _at_work(self) -> list[str]:
        """The adapters whose effect has to be added to that of the base module."""
        if self.disable_adapters or self.merged:
            return []
        present = self._get_available_adapters()
        return [name for name in self.active_adapters if name in present]

    def _place(self) -> dict[str, Any]:
        """Device and number format of new weights: float32, as peft has it for half precision."""
        first = next(self.base_layer.parameters())
        wide = first.dtype in (torch.float32, torch.float64)
        return {"device": first.device, "dtype": first.dtype if wide else torch.float32}


class OwnTuner(BaseTuner):
    """A peft tuner that wraps the modules which its configuration names."""

    tuner_layer_cls: type[OwnLayer]
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012

    def _create_and_replace(  # noqa: PLR0917
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.add(adapter_name, peft_config)
            return
        layer = self.tuner_layer_cls(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        """Puts one module into the place of another; not all have a weight to hand on."""
        setattr(parent, child_name, new_module)


def register(peft_type: str, config: type[PeftConfig], tuner: type[OwnTuner]) -> None:
    """Makes a type of adapter known to peft, whose list of types is closed, by its tables."""
    PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config  # type: ignore[index]
    PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = tuner  # type: ignore[index]
    PEFT_TYPE_TO_PREFIX_MAPPING[peft_type] = tuner.prefix  # type: ignore[index]
