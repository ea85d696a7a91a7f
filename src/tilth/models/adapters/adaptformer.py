"""AdaptFormer: a small branch beside each feed-forward block (Chen et al. 2022, arXiv:2205.13535).

    y = MLP(x) + scale * Up(ReLU(Down(x)))

The branch reads what the block reads, that is behind the layer norm where the model has it there.
``Up`` starts at zero, so that the model starts as its base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from torch import nn

from tilth.models.adapters._tuner import OwnLayer, OwnTuner, register

__all__ = ["AdaptFormerConfig", "AdaptFormerLayer", "AdaptFormerTuner"]

PEFT_TYPE = "TILTH_ADAPTFORMER"


@dataclass
class AdaptFormerConfig(PeftConfig):
    """The configuration in ``adapter_config.json``.

    Attributes:
        target_modules: The feed-forward blocks.
        width: Width of their input and output.
        bottleneck: Width of the branch.
        scale: What the branch is multiplied by; a learnt one starts there.
        learn_scale: Whether the scale is trained, one number per block.
        dropout: Dropout inside the branch.
        modules_to_save: Further modules that are trained whole.
    """

    target_modules: list[str] | str | None = field(default=None)
    width: int = field(default=0)
    bottleneck: int = field(default=8)
    scale: float = field(default=0.1)
    learn_scale: bool = field(default=False)
    dropout: float = field(default=0.0)
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        """Sets the type by which the folder is told apart from those of peft."""
        super().__post_init__()
        self.peft_type = PEFT_TYPE


class AdaptFormerLayer(OwnLayer):
    """A feed-forward block with a branch per adapter."""

    adapter_layer_names = ("adaptformer_down", "adaptformer_up", "adaptformer_scale")
    other_param_names = ("adaptformer_dropout",)

    def _prepare(self) -> None:
        self.adaptformer_down, self.adaptformer_up = nn.ModuleDict(), nn.ModuleDict()
        self.adaptformer_scale = nn.ParameterDict()
        self.adaptformer_dropout = nn.ModuleDict()
        self._fixed: dict[str, float] = {}

    def add(self, name: str, config: Any) -> None:
        """A branch that adds nothing yet; its other end draws from torch's generator."""
        place = self._place()
        down = nn.Linear(config.width, config.bottleneck, **place)
        up = nn.Linear(config.bottleneck, config.width, **place)
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        self.adaptformer_down[name], self.adaptformer_up[name] = down, up
        self.adaptformer_dropout[name] = nn.Dropout(config.dropout)
        self._fixed[name] = config.scale
        if config.learn_scale:
            self.adaptformer_scale[name] = nn.Parameter(torch.tensor(config.scale, **place))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The block's output with the branches added."""
        output = self.base_layer(x, *args, **kwargs)
        for name in self._at_work():
            down, up = self.adaptformer_down[name], self.adaptformer_up[name]
            hidden = torch.relu(down(x.to(next(down.parameters()).dtype)))
            learnt = name in self.adaptformer_scale
            scale = self.adaptformer_scale[name] if learnt else self._fixed[name]
            output = output + (up(self.adaptformer_dropout[name](hidden)) * scale).to(output.dtype)
        return output

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Cannot be done: the branch has a ReLU that the block's weights cannot express."""
        raise ValueError("AdaptFormer cannot be merged into the base weights")


class AdaptFormerTuner(OwnTuner):
    """peft's tuner for AdaptFormer."""

    prefix = "adaptformer_"
    tuner_layer_cls = AdaptFormerLayer

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Refuses branches that are as wide as those of another model."""
        width = model.config.hidden_size  # type: ignore[union-attr]
        if peft_config.width != width:
            raise ValueError(f"the branches are {peft_config.width} wide, the model is {width}")


register(PEFT_TYPE, AdaptFormerConfig, AdaptFormerTuner)
