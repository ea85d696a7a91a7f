"""BitFit: only bias terms are trained (Ben Zaken et al. 2021, arXiv:2106.10199).

What is trained is the difference to the base model's bias, which starts at zero: the base weights
stay as they are, several adapters share one model, and merging is one addition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tilth.models.adapters._tuner import OwnLayer, OwnTuner, register
from tilth.models.adapters.parts import head_name

__all__ = ["BitFitConfig", "BitFitLayer", "BitFitTuner", "bias_modules"]

PEFT_TYPE = "TILTH_BITFIT"


@dataclass
class BitFitConfig(PeftConfig):
    """The configuration in ``adapter_config.json``.

    Attributes:
        target_modules: The modules whose bias is trained.
        modules_to_save: Further modules that are trained whole.
    """

    target_modules: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        """Sets the type by which the folder is told apart from those of peft."""
        super().__post_init__()
        self.peft_type = PEFT_TYPE


class BitFitLayer(OwnLayer):
    """A module and what is added to its bias, ``[width]`` per adapter."""

    adapter_layer_names = ("bitfit_bias",)

    def _prepare(self) -> None:
        self.bitfit_bias = nn.ParameterDict()

    def add(self, name: str, config: Any) -> None:
        """A difference of zero."""
        width = bias_width(self.get_base_layer())
        self.bitfit_bias[name] = nn.Parameter(torch.zeros(width, **self._place()))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The base module's output with the differences added."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        output = self.base_layer(x, *args, **kwargs)
        for name in self._at_work():
            bias = self.bitfit_bias[name]
            if isinstance(self.get_base_layer(), nn.Conv2d):
                bias = bias[:, None, None]
            output = (output + bias).to(output.dtype)
        return output

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds the differences to the base module's bias; a module without one gets one."""
        base = self.get_base_layer()
        for name in adapter_names or self.active_adapters:
            if name not in self.bitfit_bias or name in self.merged_adapters:
                continue
            added = self.bitfit_bias[name].data
            if base.bias is None:
                base.bias = nn.Parameter(torch.zeros_like(added, dtype=base.weight.dtype), False)
            base.bias.data = (base.bias.data + added).to(base.bias.dtype)
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Takes the differences away again."""
        base = self.get_base_layer()
        while self.merged_adapters:
            taken = self.bitfit_bias[self.merged_adapters.pop()].data
            base.bias.data = (base.bias.data - taken).to(base.bias.dtype)


class BitFitTuner(OwnTuner):
    """peft's tuner for BitFit."""

    prefix = "bitfit_"
    tuner_layer_cls = BitFitLayer


register(PEFT_TYPE, BitFitConfig, BitFitTuner)

_WITH_BIAS = (nn.Linear, Conv1D, nn.LayerNorm, nn.Conv2d)


def bias_width(module: nn.Module) -> int:
    """The length of the bias that `module` has, or would have."""
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    return module.nf if isinstance(module, Conv1D) else int(module.out_features)  # type: ignore[arg-type]


def bias_modules(model: PreTrainedModel, new: str, without: Iterable[str] = ()) -> list[str]:
    """The modules of `model` whose bias BitFit trains, sorted.

    Args:
        model: The base model.
        new: ``never``: only biases that are there; ``always``: also new ones, starting at zero, in
            linear layers without one; ``auto``: new ones where the model has no bias at all. The
            head gets no new one.
        without: Last names of modules that are left out.
    """
    head = head_name(model)
    listed = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _WITH_BIAS) and name.rpartition(".")[2] not in set(without)
    ]
    there = [name for name, module in listed if module.bias is not None]
    if new == "always" or (new == "auto" and not there):
        there += [
            name
            for name, module in listed
            if module.bias is None and isinstance(module, nn.Linear) and name != head
        ]
    return sorted(there)
