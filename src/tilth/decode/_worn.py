"""Linear layers whose rows wear different LoRA adapters, or none.

peft can mix adapters in one batch too; it looks every row's adapter up by name in every layer,
which for a small model takes as long as the layer itself. Here the rows of an adapter are a slice,
and its update is one product and one product added in place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tilth.errors import ModelError

__all__ = ["Outfit", "Worn", "dress", "mixable"]

_PREFIX = "base_model.model."
_PLAIN: dict[str, object] = {
    "use_dora": False,
    "lora_bias": False,
    "modules_to_save": None,
    "trainable_token_indices": None,
    "alora_invocation_tokens": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
}

Outfit = list[tuple[str, slice]]
"""Which rows of the next pass wear which adapter; one list, shared by all layers of a model."""


class Worn(nn.Module):
    """A linear layer and the adapters that rows may wear on it."""

    def __init__(self, layer: nn.Module, outfit: Outfit) -> None:
        super().__init__()
        self.layer = layer
        self._outfit = outfit
        self._adapters: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, name: str, down_ID: torch.Tensor, up_DO: torch.Tensor) -> None:
        """One more adapter: ``x @ down @ up`` is added, the scale being part of `up`."""
        self._adapters[name] = (down_ID, up_DO)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, every row with what its adapter adds."""
        result = self.layer(x)
        for name, rows in self._outfit:
            if name in self._adapters:
                down_ID, up_DO = self._adapters[name]
                part = result[rows].view(-1, result.shape[-1])
                part.addmm_(x[rows].reshape(-1, x.shape[-1]) @ down_ID, up_DO)
        return result


def mixable(folder: Path) -> bool:
    """Whether the adapter in `folder` is a LoRA of the plain kind, which can share a batch."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        return False
    if any(config.get(key, plain) not in (plain, False, None, {}) for key, plain in _PLAIN.items()):
        return False
    path = folder / "adapter_model.safetensors"
    return path.is_file() and not any("embedding" in name for name in _names(path))


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise ModelError(f"the adapter is damaged: {error}", where=str(path)) from error


def dress(model: nn.Module, folder: Path, name: str, outfit: Outfit) -> None:
    """Adds an adapter to the layers of `model`, which are replaced by :class:`Worn` ones.

    Raises:
        ModelError: A tensor of the adapter has no layer, or another shape.
    """
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    rank, alpha = config["r"], config["lora_alpha"]
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    tensors = load_file(folder / "adapter_model.safetensors")
    downs = {k.removesuffix(".lora_A.weight"): v for k, v in tensors.items() if ".lora_A." in k}
    for place, down_DI in downs.items():
        path = place.removeprefix(_PREFIX)
        up_OD = tensors.pop(f"{place}.lora_B.weight", None)
        tensors.pop(f"{place}.lora_A.weight")
        worn = _worn(model, path, outfit, folder)
        weight = _weight(worn.layer)
        if up_OD is None or {up_OD.shape[0], down_DI.shape[1]} != set(weight.shape):
            raise _unfit(folder, f"{path} has another shape")
        like: Mapping[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        down_ID = down_DI.T.to(**like).contiguous()
        worn.add(name, down_ID, (up_OD.float().T * scale).to(**like).contiguous())
    if tensors:
        raise _unfit(folder, f"{next(iter(tensors))} belongs to no layer")


def _worn(model: nn.Module, path: str, outfit: Outfit, folder: Path) -> Worn:
    parent_path, _, own = path.rpartition(".")
    try:
        parent = model.get_submodule(parent_path)
        layer = parent.get_submodule(own)
    except AttributeError:
        raise _unfit(folder, f"there is no {path}") from None
    if isinstance(layer, Worn):
        return layer
    worn = Worn(layer, outfit)
    setattr(parent, own, worn)
    return worn


def _weight(layer: nn.Module) -> torch.Tensor:
    found = layer.weight
    assert isinstance(found, torch.Tensor)
    return found


def _unfit(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"this adapter was made for another base model ({why})",
        where=str(folder),
        fix="name its own base: BASE+ADAPTER",
    )
